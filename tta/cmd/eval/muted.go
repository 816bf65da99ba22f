package main

// muted are the classes of ImageNet-1k (index in the classifier's order, name)
// that name a kept-out class or a synonym of it: what the backbone's own
// classifier knows of them is not used in the suite open. It has no name with
// pistol, handgun or dove.
var muted = []struct {
	class    int
	name     string
	contains string // which kept-out class
}{
	{7, "rooster", "rooster"},
	{78, "tick", "tick"},
	{109, "brain coral", "brain"},
	{117, "chambered nautilus", "nautilus"},
	{134, "crane bird", "crane"},
	{321, "red admiral butterfly", "butterfly"},
	{322, "ringlet butterfly", "butterfly"},
	{323, "monarch butterfly", "butterfly"},
	{324, "small white butterfly", "butterfly"},
	{325, "sulphur butterfly", "butterfly"},
	{326, "gossamer-winged butterfly", "butterfly"},
	{337, "beaver", "beaver"},
	{372, "baboon", "baboon"},
	{398, "abacus", "abacus"},
	{496, "Christmas stocking", "Christmas stocking"},
	{517, "construction crane", "crane"},
	{625, "lifeboat", "lifeboat"},
	{683, "oboe", "oboe"},
	{731, "plunger", "plunger"},
	{732, "Polaroid camera", "camera"},
	{759, "reflex camera", "camera"},
	{763, "revolver", "revolver"},
	{776, "saxophone", "saxophone"},
	{805, "soccer ball", "soccer ball"},
	{842, "swim trunks / shorts", "swimming trunks"},
	{890, "volleyball", "volleyball"},
	{962, "meatloaf", "meat loaf"},
}
