package main

import (
	"strings"
	"testing"
)

func TestTally(t *testing.T) {
	const events = `{"Action":"run","Package":"a","Test":"TestGood"}
{"Action":"output","Package":"a","Test":"TestGood","Output":"    x_test.go:1: fine\n"}
{"Action":"pass","Package":"a","Test":"TestGood","Elapsed":0.1}
{"Action":"output","Package":"a","Test":"TestNeeds","Output":"=== RUN   TestNeeds\n"}
{"Action":"output","Package":"a","Test":"TestNeeds","Output":"    x_test.go:2: no camera here\n"}
{"Action":"output","Package":"a","Test":"TestNeeds","Output":"--- SKIP: TestNeeds (0.00s)\n"}
{"Action":"skip","Package":"a","Test":"TestNeeds"}
{"Action":"pass","Package":"a","Elapsed":0.2}
{"Action":"output","Package":"b","Test":"TestBad/case","Output":"    y_test.go:9: 3, want 4\n"}
{"Action":"fail","Package":"b","Test":"TestBad/case"}
{"Action":"fail","Package":"b","Test":"TestBad"}
{"Action":"output","Package":"b","Output":"FAIL\n"}
{"Action":"output","Package":"b","Output":"FAIL\tb\t0.3s\n"}
{"Action":"fail","Package":"b","Elapsed":0.3}
{"Action":"output","Package":"c","Test":"TestPanics","Output":"panic: boom\n"}
{"Action":"fail","Package":"c","Elapsed":0.1}
{"Action":"skip","Package":"d"}
go: not an event
`
	var out strings.Builder
	tally := newTally(&out)
	if err := tally.read(strings.NewReader(events)); err != nil {
		t.Fatal(err)
	}
	if tally.passed != 1 || tally.failed != 2 || tally.skipped != 1 {
		t.Errorf("passed %d, failed %d, skipped %d; want 1, 2 (a test, a panic), 1", tally.passed, tally.failed, tally.skipped)
	}
	const want = `skip	a TestNeeds: x_test.go:2: no camera here
ok  	a	0.200s
    y_test.go:9: 3, want 4
FAIL	b	0.300s
panic: boom
FAIL	c	0.100s
?   	d	[no test files]
go: not an event
`
	if out.String() != want {
		t.Errorf("printed\n%swant\n%s", out.String(), want)
	}
}
