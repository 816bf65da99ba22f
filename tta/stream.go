package tta

func newStream(s Space) Adapter {
	return &chain{"stream", newLQA(s), newSticky(s)}
}
