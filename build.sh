#!/usr/bin/env bash
# Front door. ./build.sh help lists what there is.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

# What is made lands here, out of git's sight.
build=build
staticcheck=honnef.co/go/tools/cmd/staticcheck@v0.8.2
typescript=typescript@7.0.2

help() {
	cat <<-'END'
		usage: ./build.sh COMMAND [arguments]

		  serve [-addr host:port] [-tls] [-v]   build the site, serve it, print its address
		  test [PART ...]                       all checks, or some of: lint types native node chromium golden page
		  bench [-busy-ok] [-models LIST] ...   speed and memory as JSON lines, beside other engines
		  eval --suite NAME                     accuracy as JSON lines
		  shq COMMAND                           convert, inspect, verify .shq files
		  train                                 rebuild the float weights into build/
		  fmt                                   format the Go code

		serve needs Go alone. test also uses Chromium, Node.js and Python; what is missing it
		installs where it may (root on Debian), or says how to and what it skips.
	END
}

say() { printf '%s\n' "$*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }

need_go() {
	if ! have go; then
		say "build.sh: Go is missing. Get it from https://go.dev/dl/ (1.21 or later; it fetches the version in go.mod itself)."
		exit 1
	fi
	# A Go older than go.mod's, told to stay local, may fetch the right one here.
	if ! go list -m >/dev/null 2>&1; then export GOTOOLCHAIN=auto; fi
}

# ---- test ------------------------------------------------------------------

failed=() skipped=()

# step NAME COMMAND...: run it, note a failure, go on.
step() {
	local name=$1 start=$SECONDS
	shift
	echo "== $name"
	if "$@"; then
		echo "   $name: $((SECONDS - start)) s"
	else
		echo "   $name: FAILED after $((SECONDS - start)) s"
		failed+=("$name")
	fi
}

skip() { # NAME REASON
	echo "== $1"
	echo "   SKIPPED: $2"
	skipped+=("$1: $2")
}

# want COMMAND PACKAGE...: be sure that there is such a command, by Debian's packages if need be.
want() {
	local cmd=$1
	shift
	have "$cmd" && return
	if [[ $(id -u) == 0 ]] && have apt-get; then
		echo "== installing $*"
		# The first try serves where the package lists are fresh, the second where they are not.
		DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" >"$build/apt.log" 2>&1 ||
			{ apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"; } >>"$build/apt.log" 2>&1 ||
			tail -n 5 "$build/apt.log"
	fi
	have "$cmd" && return
	say "build.sh: $cmd is missing. On Debian: sudo apt-get install -y $*"
	return 1
}

gofmt_clean() {
	local dirty
	dirty=$(git ls-files -z --cached --others --exclude-standard '*.go' | xargs -0 -r gofmt -l)
	[[ -z $dirty ]] || { printf 'not formatted (./build.sh fmt):\n%s\n' "$dirty"; return 1; }
}

js() { GOOS=js GOARCH=wasm "$@"; }

# What is shipped is looked at for both targets at once: what only one of them
# uses is used. web/ is native.
check() {
	printf '%s\n' 'native: GOOS=linux GOARCH=amd64' 'browser: GOOS=js GOARCH=wasm' |
		"$build/bin/staticcheck" -matrix ./quant/... ./tta/... ./wasm/... &&
		"$build/bin/staticcheck" ./web/...
}

fetch_staticcheck() {
	mkdir -p "$build/bin"
	[[ -x $build/bin/staticcheck ]] || GOBIN=$PWD/$build/bin go install "$staticcheck"
}

# tested prints the packages with tests that build for the target in the
# environment, all but the patterns given.
tested() {
	local pattern
	pattern=$(IFS='|'; echo "$*")
	go list -e -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}' ./... | grep -Ev "${pattern:-^$}"
}

# tally NAME: go test's events, told briefly; all that was printed is kept in the build folder.
tally() { "$build/bin/tally" -totals "$build/totals" -log "$build/test-$1.log"; }

test_native() { go test -json $(tested '^lqa/web/test$') 2>&1 | tally native; }

test_node() {
	# wasm_exec.js has 8 KiB for arguments and environment together: give it little.
	env -i PATH="$PATH" HOME="$HOME" GOOS=js GOARCH=wasm GOFLAGS="${GOFLAGS:-}" GOTOOLCHAIN="${GOTOOLCHAIN:-}" \
		GOPROXY="$(go env GOPROXY)" GOMODCACHE="$(go env GOMODCACHE)" GOCACHE="$(go env GOCACHE)" \
		LQA_DATA="${LQA_DATA:-}" LQA_MODELS="${LQA_MODELS:-}" LQA_HOST=node \
		go test -json -p 2 -exec "$PWD/web/cmd/nodeexec" $(js tested '/native$' '/hub$' '/cmd/') 2>&1 |
		tally node
}

# Each package gets its own Chromium: one at a time.
test_chromium() {
	GOOS=js GOARCH=wasm go test -json -p 1 -exec "$PWD/$build/bin/chromiumexec" $(js tested '/native$' '/hub$' '/cmd/') 2>&1 |
		tally chromium
}

# Seen anew each time: a browser, its cameras and its clock are no part of the cache's key.
test_page() { go test -json -count=1 -timeout 12m ./web/test 2>&1 | tally page; }

types() {
	[[ -x $build/node_modules/.bin/tsc ]] || npm install --prefix "$build" --no-audit --no-fund --silent "$typescript"
	"$build/node_modules/.bin/tsc" -p web/tsconfig.json
}

run_tests() {
	local python= parts=" ${*:-lint types native node chromium golden page} " chromium=1 node=1
	local begin=$SECONDS before
	need_go
	mkdir -p "$build/bin"
	rm -f "$build/totals"
	before=$(git status --porcelain 2>/dev/null || true)
	go build -o "$build/bin/" ./web/cmd/tally ./web/cmd/chromiumexec

	case $parts in *" node "* | *" types "*) want node nodejs npm || node= ;; esac
	case $parts in *" types "*) want npm npm || true ;; esac
	case $parts in *" golden "* | *" native "*)
		want python3 python3 python3-venv && find_python || python=
		if [[ $python ]]; then export LQA_PYTHON=$python; fi
		;;
	esac
	case $parts in *" chromium "* | *" page "*) have_chromium || want chromium chromium || chromium= ;; esac

	for part in $parts; do
		case $part in
		lint)
			step "gofmt" gofmt_clean
			step "vet, native" go vet ./...
			step "vet, js/wasm" js go vet $(js go list -e ./wasm/... ./quant/... ./tta/...)
			if fetch_staticcheck; then
				step "staticcheck" check
			else
				skip "staticcheck" "could not fetch $staticcheck"
			fi
			;;
		types)
			if [[ $node ]] && have npm; then step "types of web/*.js" types; else skip "types of web/*.js" "no Node.js"; fi
			;;
		native) step "tests, native" test_native ;;
		node)
			if [[ $node ]]; then step "tests, js/wasm in Node.js" test_node; else skip "tests in Node.js" "no Node.js"; fi
			;;
		chromium)
			if [[ $chromium ]]; then step "tests, js/wasm in Chromium" test_chromium; else skip "tests in Chromium" "no Chromium"; fi
			;;
		golden)
			if [[ $python ]]; then
				step "golden file, NumPy" golden
			else
				skip "golden file, NumPy" "no python3 with venv and NumPy (Debian: sudo apt-get install -y python3-numpy)"
			fi
			;;
		page)
			if [[ $chromium ]]; then step "page tests" test_page; else skip "page tests" "no Chromium"; fi
			;;
		*)
			say "build.sh: no such part of test: $part"
			exit 2
			;;
		esac
	done
	if [[ -z $before && -n $(git status --porcelain 2>/dev/null || true) ]]; then
		echo "== the tests changed the tree:"
		git status --porcelain
		failed+=("clean tree")
	fi
	summary $((SECONDS - begin))
}

have_chromium() {
	[[ -n ${CHROMIUM:-} ]] || have chromium || have chromium-browser || have google-chrome-stable || have google-chrome
}

# find_python finds a Python with NumPy and zstandard, or makes one in the build
# folder. NumPy is enough for the golden file; quant/shq's tests want both.
find_python() {
	local venv=$PWD/$build/venv/bin/python
	for python in "${LQA_PYTHON:-python3}" "$venv"; do
		"$python" -c 'import numpy, zstandard' 2>/dev/null && return
	done
	{ [[ -x $venv ]] || python3 -m venv "$build/venv"; } >"$build/pip.log" 2>&1 &&
		"$venv" -m pip install --quiet --disable-pip-version-check numpy zstandard >"$build/pip.log" 2>&1
	for python in "$venv" python3; do
		"$python" -c 'import numpy' 2>/dev/null && return
	done
	return 1
}

# golden runs the independent NumPy version of the adapter's equations again
# and compares what it writes with the committed file, to a last bit or two:
# sums run in another order elsewhere.
golden() {
	local dir
	dir=$(mktemp -d)
	cp tta/testdata/golden.py "$dir" && "$python" "$dir/golden.py" && "$python" - "$dir/golden.bin" <<-'END'
		import sys
		import numpy as np
		got, want = (np.fromfile(p, "<f4") for p in (sys.argv[1], "tta/testdata/golden.bin"))
		assert got.shape == want.shape, "golden.bin has another size"
		assert np.allclose(got, want, rtol=1e-5, atol=1e-6), f"golden.bin differs by {np.abs(got - want).max()}"
	END
	local status=$?
	rm -r "$dir"
	return $status
}

summary() { # SECONDS
	local passed=0 bad=0 missed=0 p f s
	if [[ -f $build/totals ]]; then
		while read -r p f s; do passed=$((passed + p)) bad=$((bad + f)) missed=$((missed + s)); done <"$build/totals"
	fi
	echo "== summary after $1 s"
	for s in ${skipped[@]+"${skipped[@]}"}; do echo "   SKIPPED $s"; done
	for f in ${failed[@]+"${failed[@]}"}; do echo "   FAILED $f"; done
	# A step that fails without a failed test (format, types) counts as one.
	if ((bad < ${#failed[@]})); then bad=${#failed[@]}; fi
	echo "   $((missed)) tests and ${#skipped[@]} steps skipped"
	echo "$passed passed, $bad failed"
	((${#failed[@]} == 0))
}

# ---- bench -----------------------------------------------------------------

# peers fetches the engines that ours is compared with and makes their models;
# what can't be had the bench does without.
peers() {
	local dir=$build/peers python
	mkdir -p "$dir"
	want npm nodejs npm &&
		npm install --prefix "$dir" --ignore-scripts --no-audit --no-fund --silent onnxruntime-web@latest @litertjs/core@latest ||
		say "build.sh: the peers could not be fetched from npm."
	python=$(peers_python) &&
		PYTHONDONTWRITEBYTECODE=1 "$python" web/cmd/bench/peers/make.py "$dir/models" assets/samples ||
		say "build.sh: the peers' models could not be made (see $build/pip.log). LQA_PEERS_PYTHON: a Python that has web/cmd/bench/peers/requirements.txt"
}

# peers_python finds a Python that can make models, or makes one in the build folder.
peers_python() {
	local python=${LQA_PEERS_PYTHON:-} needs=web/cmd/bench/peers/requirements.txt
	if [[ -z $python ]]; then
		python=$build/venv/peers/bin/python
		if [[ ! -e $build/venv/peers/.done ]]; then
			want python3 python3 python3-venv && {
				python3 -m venv "$build/venv/peers" &&
					"$python" -m pip install --quiet --disable-pip-version-check $(grep -Ev '^(#|efficientnet)' "$needs") &&
					"$python" -m pip install --quiet --disable-pip-version-check --no-deps $(grep ^efficientnet "$needs") &&
					touch "$build/venv/peers/.done"
			} >"$build/pip.log" 2>&1 || return
		fi
	fi
	echo "$python"
}

# ---- commands --------------------------------------------------------------

command=${1:-help}
(($#)) && shift
case $command in
serve)
	need_go
	exec go run ./web/cmd/serve "$@"
	;;
test) run_tests "$@" ;;
bench)
	need_go
	[[ " $* " == *" -peers=false "* ]] || peers
	exec go run ./web/cmd/bench "$@"
	;;
eval)
	need_go
	exec go run ./tta/cmd/eval "$@"
	;;
shq)
	need_go
	exec go run ./quant/cmd/shq "$@"
	;;
train) exec ./assets/train/run.sh "$@" ;;
fmt)
	need_go
	git ls-files -z --cached --others --exclude-standard '*.go' | xargs -0 -r gofmt -w
	;;
help | -h | --help) help ;;
*)
	help >&2
	exit 2
	;;
esac
