package main

import (
	"encoding/xml"
	"fmt"
	"math"
	"strings"
)

// chart is a drawing of lines in one frame.
type chart struct {
	title, x, y string
	xMax, yMax  float64 // both begin at 0
	lines       []chartLine
}

type chartLine struct {
	name   string
	points [][2]float64 // a NaN breaks the line
	dashed bool
	dots   bool // a mark at each point
}

// colours that people with any colour vision tell apart (Okabe and Ito, 2008).
var colours = []string{"#000000", "#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#d55e00", "#0072b2", "#777777"}

const (
	svgWidth, svgHeight       = 640, 360
	svgLeft, svgRight         = 56, 150
	svgTop, svgBottom         = 32, 44
	plotWidth, plotHeight     = svgWidth - svgLeft - svgRight, svgHeight - svgTop - svgBottom
	svgTicks                  = 5
	svgGrey, svgText, svgFont = "#cccccc", "#222222", "font-family=\"sans-serif\" font-size=\"12\""
)

// svg draws the chart.
func (c *chart) svg() string {
	var b strings.Builder
	text := func(x, y float64, anchor, more, s string) {
		fmt.Fprintf(&b, `<text x="%.1f" y="%.1f" text-anchor="%s" fill="%s"%s>`, x, y, anchor, svgText, more)
		xml.EscapeText(&b, []byte(s))
		b.WriteString("</text>\n")
	}
	at := func(p [2]float64) (x, y float64) {
		return svgLeft + plotWidth*p[0]/c.xMax, svgTop + plotHeight*(1-min(max(p[1]/c.yMax, 0), 1))
	}
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d" %s>`+"\n", svgWidth, svgHeight, svgFont)
	b.WriteString(`<rect width="100%" height="100%" fill="#ffffff"/>` + "\n")
	text(svgLeft+plotWidth/2, 18, "middle", ` font-weight="bold"`, c.title)
	for i := range svgTicks + 1 {
		part := float64(i) / svgTicks
		x, y := at([2]float64{part * c.xMax, part * c.yMax})
		fmt.Fprintf(&b, `<path d="M%d %.1fh%d" stroke="%s"/>`+"\n", svgLeft, y, plotWidth, svgGrey)
		text(svgLeft-6, y+4, "end", "", fmt.Sprintf("%.4g", part*c.yMax))
		text(x, svgTop+plotHeight+16, "middle", "", fmt.Sprintf("%.4g", part*c.xMax))
	}
	text(svgLeft+plotWidth/2, svgHeight-8, "middle", "", c.x)
	fmt.Fprintf(&b, `<g transform="translate(14 %d) rotate(-90)">`, svgTop+plotHeight/2)
	text(0, 0, "middle", "", c.y)
	b.WriteString("</g>\n")
	for i, l := range c.lines {
		colour, dash := colours[i%len(colours)], ""
		if l.dashed {
			dash = ` stroke-dasharray="5 3"`
		}
		var d strings.Builder
		pen := "M"
		for _, p := range l.points {
			if math.IsNaN(p[1]) {
				pen = "M"
				continue
			}
			x, y := at(p)
			fmt.Fprintf(&d, "%s%.1f %.1f", pen, x, y)
			pen = "L"
			if l.dots {
				fmt.Fprintf(&b, `<circle cx="%.1f" cy="%.1f" r="3" fill="%s"/>`+"\n", x, y, colour)
			}
		}
		fmt.Fprintf(&b, `<path d="%s" fill="none" stroke="%s" stroke-width="1.5"%s/>`+"\n", d.String(), colour, dash)
		y := float64(svgTop + 8 + 18*i)
		fmt.Fprintf(&b, `<path d="M%d %.1fh20" stroke="%s" stroke-width="2"%s/>`+"\n", svgLeft+plotWidth+10, y, colour, dash)
		text(svgLeft+plotWidth+36, y+4, "start", "", l.name)
	}
	b.WriteString("</svg>\n")
	return b.String()
}
