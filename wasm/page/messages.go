package page

import "lqa/wasm/proto"

// advice is what a person reads about an error: what happened and what to do.
type advice struct {
	title string
	text  string
	retry string // what a button offers, or ""
}

const (
	retryLoad   = "Load again"
	retryCamera = "Try the camera again"
)

// advices has one entry for each code that can reach a page. What is missing
// here shows the engine's own words.
var advices = map[proto.Code]advice{
	proto.FetchFailed:     {"The model could not be fetched", "The download failed or was cut off. Check the connection, then load again.", retryLoad},
	proto.FileChanged:     {"The model has changed on the server", "Another took its place while it was read. Load again to get the new one.", retryLoad},
	proto.Truncated:       {"The download was cut short", "The model's file ended early. Loading again usually helps.", retryLoad},
	proto.NotSHQ:          {"This is not a model", "What came is no .shq file; a server may have sent a web page in its place.", retryLoad},
	proto.SHQVersion:      {"The model is of another version", "This page cannot read it. Reload the page, so that both are of one version.", retryLoad},
	proto.Corrupt:         {"The model is damaged", "Its checksum does not match what it says of itself, so it was not used.", retryLoad},
	proto.TooLarge:        {"The model asks for too much memory", "It claims more than this page allows, so it was not loaded.", retryLoad},
	proto.IntegrityFailed: {"This is another model than the one asked for", "Its hash differs from the one this page was given.", retryLoad},
	proto.NoMemory:        {"Not enough memory", "The browser would not give the model its memory. Close other tabs, then load again.", retryLoad},
	proto.NoSIMD:          {"This browser lacks WebAssembly SIMD", "The engine needs it: Chrome 91, Firefox 89, Safari 16.4 or newer.", ""},
	proto.EngineFailed:    {"The engine did not start", "Its program could not be loaded, or it ended.", retryLoad},
	proto.VersionMismatch: {"Page and engine are of different versions", "Reload the page.", retryLoad},
	proto.Internal:        {"Something went wrong in the engine", "This should not happen. Loading again may help.", retryLoad},

	proto.NoLabels:      {"No labels", "Give at least one thing to look for.", ""},
	proto.TooManyLabels: {"Too many labels", "The engine takes up to 4,096 of them.", ""},

	proto.BadState: {"That file does not fit", "It is damaged, or was saved with other labels or another model. Nothing has changed.", ""},

	proto.CameraDenied:      {"The camera is blocked", "Permission was refused. Allow the camera in the address bar's site settings, then try again. Samples and your own pictures work without it.", retryCamera},
	proto.CameraNone:        {"No camera was found", "Connect one and try again, or play the clip or open a picture.", retryCamera},
	proto.CameraBusy:        {"The camera is in use", "Another program holds it. Close that one, then try again.", retryCamera},
	proto.CameraUnfit:       {"That camera is not available", "The one that was chosen cannot be used now. Choose another.", retryCamera},
	proto.CameraInsecure:    {"Cameras need a secure page", "Browsers give the camera only over https or on localhost. Open this page by its https address.", ""},
	proto.CameraUnsupported: {"This browser offers no camera", "Browsers inside other apps often lack it. Open the page in the phone's own browser, or open a picture.", ""},
	proto.CameraLost:        {"The camera went away", "It was unplugged or taken by another program.", retryCamera},
	proto.CameraFailed:      {"The camera did not start", "The browser gave no clear reason.", retryCamera},
	proto.FileUnreadable:    {"That file is no picture or video", "The browser cannot open it. JPEG, PNG, WebP, MP4 and WebM work.", ""},
	proto.BadImage:          {"That picture cannot be read", "The browser could not decode it.", ""},
}

// adviceFor never fails: unknown codes show the message itself.
func adviceFor(e proto.Error) advice {
	if a, ok := advices[e.Code]; ok {
		return a
	}
	return advice{title: "Something went wrong", text: e.Message}
}
