// Package page is the page role: the document, the camera and what is said to
// the engine. It speaks proto and computes nothing on pictures. What the visitor
// teaches and sees of adaptation is web/learn.js's, on the same session.
//
// The files that end in _js.go touch the document; the rest is plain Go and
// tests natively. web/boot.js puts two things on the global object before it
// starts Go: lqaMedia, the functions of media.js and clip.js, and
// lqaWorker(onMessage), which starts a worker in the engine role.
package page
