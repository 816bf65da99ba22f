package tta

// Ablations are stream without one of its parts each: for eval, which shows
// what a part is worth, and not in Methods. A program that wants them by name
// appends them to Methods.
var Ablations = []Method{
	ablation("cache", "The exemplars' votes.", noCache),
	ablation("hubs", "The mean image: hubs stay.", noHubs),
	ablation("cut", "Shots: every frame is one.", noCut),
	ablation("second", "Second thoughts: cuts are not taken back, nor made late.", noSecond),
	ablation("balance", "Balance: one offset for all believed labels.", noBalance),
	ablation("offset", "The offset.", noOffset),
	ablation("evidence", "The gate of persistence.", noEvidence),
	ablation("margin", "The margin guard: offset and hubs are full, and shots as hard to end, where the model is sure too.", noMargin),
	ablation("drift", "Forgetting when the mean doubt jumps.", noDrift),
	ablation("int8", "Rounding: the caches hold floats.", floatKeys),
}

func ablation(part, doc string, off int) Method {
	return Method{"stream-no" + part, "Stream without " + part, "Without: " + doc,
		func(s Space) Adapter { return makeStream(s, off) }}
}
