package clip

// accented lists, in pairs, each lower-case letter below U+2000 whose canonical
// decomposition (NFD) is one letter and combining marks, and that letter:
// 450 pairs. Made from Unicode's data by the rule just given; a table of all
// of Unicode would weigh more than the rest of the tokenizer.
const accented = "" +
	"àaáaâaãaäaåaçcèeéeêeëeìiíiîiïiñnòoóoôoõoöoùuúuûuüuýyÿyāaăaąa" +
	"ćcĉcċcčcďdēeĕeėeęeěeĝgğgġgģgĥhĩiīiĭiįiĵjķkĺlļlľlńnņnňnōoŏoőo" +
	"ŕrŗrřrśsŝsşsšsţtťtũuūuŭuůuűuųuŵwŷyźzżzžzơoưuǎaǐiǒoǔuǖuǘuǚuǜu" +
	"ǟaǡaǣæǧgǩkǫoǭoǯʒǰjǵgǹnǻaǽæǿøȁaȃaȅeȇeȉiȋiȍoȏoȑrȓrȕuȗușsțtȟhȧa" +
	"ȩeȫoȭoȯoȱoȳyʹʹΐιάαέεήηίιΰυϊιϋυόούυώωϓϒϔϒйиѐеёеѓгїіќкѝиўуѷѵӂж" +
	"ӑаӓаӗеӛәӝжӟзӣиӥиӧоӫөӭэӯуӱуӳуӵчӹыآاأاؤوإائيۀەۂہۓےऩनऱरऴळक़कख़खग़ग" +
	"ज़जड़डढ़ढफ़फय़यড়ডঢ়ঢয়যਲ਼ਲਸ਼ਸਖ਼ਖਗ਼ਗਜ਼ਜਫ਼ਫଡ଼ଡଢ଼ଢགྷགཌྷཌདྷདབྷབཛྷཛཀྵཀဦဥḁaḃbḅbḇbḉcḋdḍd" +
	"ḏdḑdḓdḕeḗeḙeḛeḝeḟfḡgḣhḥhḧhḩhḫhḭiḯiḱkḳkḵkḷlḹlḻlḽlḿmṁmṃmṅnṇnṉn" +
	"ṋnṍoṏoṑoṓoṕpṗpṙrṛrṝrṟrṡsṣsṥsṧsṩsṫtṭtṯtṱtṳuṵuṷuṹuṻuṽvṿvẁwẃwẅw" +
	"ẇwẉwẋxẍxẏyẑzẓzẕzẖhẗtẘwẙyẛſạaảaấaầaẩaẫaậaắaằaẳaẵaặaẹeẻeẽeếeềe" +
	"ểeễeệeỉiịiọoỏoốoồoổoỗoộoớoờoởoỡoợoụuủuứuừuửuữuựuỳyỵyỷyỹyἀαἁα" +
	"ἂαἃαἄαἅαἆαἇαἐεἑεἒεἓεἔεἕεἠηἡηἢηἣηἤηἥηἦηἧηἰιἱιἲιἳιἴιἵιἶιἷιὀοὁο" +
	"ὂοὃοὄοὅοὐυὑυὒυὓυὔυὕυὖυὗυὠωὡωὢωὣωὤωὥωὦωὧωὰαάαὲεέεὴηήηὶιίιὸοόο" +
	"ὺυύυὼωώωᾀαᾁαᾂαᾃαᾄαᾅαᾆαᾇαᾐηᾑηᾒηᾓηᾔηᾕηᾖηᾗηᾠωᾡωᾢωᾣωᾤωᾥωᾦωᾧωᾰαᾱα" +
	"ᾲαᾳαᾴαᾶαᾷαιιῂηῃηῄηῆηῇηῐιῑιῒιΐιῖιῗιῠυῡυῢυΰυῤρῥρῦυῧυῲωῳωῴωῶωῷω"
