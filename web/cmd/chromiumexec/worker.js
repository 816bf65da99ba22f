// Runs a Go program as go_js_wasm_exec does under Node: files are read from the
// command that serves this script (synchronously: workers may), output goes
// back to it.
'use strict';

function get(path, kind) {
  const x = new XMLHttpRequest();
  x.open('GET', path, false);
  x.responseType = kind;
  x.send();
  if (x.status !== 200) throw Object.assign(new Error('no such file'), {code: 'ENOENT'});
  return x.response;
}

function post(path, body) {
  const x = new XMLHttpRequest();
  x.open('POST', path, false);
  x.send(body);
}

const start = get('/start.json', 'json');
const files = new Map(); // descriptor → {path, stat, bytes, at}
let next = 100;

const refused = (code) => Object.assign(new Error(code), {code});

function absolute(path) {
  return path.startsWith('/') ? path : start.cwd + '/' + path;
}

function stat(path) {
  const s = get('/fs/stat?path=' + encodeURIComponent(absolute(path)), 'json');
  return {
    dev: 0, ino: 0, mode: s.dir ? 0o040755 : 0o100644, nlink: 1, uid: 0, gid: 0, rdev: 0,
    size: s.size, blksize: 4096, blocks: Math.ceil(s.size / 512),
    atimeMs: s.mtime, mtimeMs: s.mtime, ctimeMs: s.mtime,
    isDirectory: () => s.dir, names: s.names,
  };
}

// answer turns a function into one of Node's style: callback(error, value).
const answer = (f) => (...args) => {
  const callback = args.pop();
  let value;
  try {
    value = f(...args);
  } catch (err) {
    callback(err.code ? err : refused('EIO'));
    return;
  }
  callback(null, value);
};

const output = {1: [], 2: []};
function flush(fd) {
  if (output[fd].length) post('/write?fd=' + fd, new Blob(output[fd].splice(0)));
}

const readOnly = answer(() => { throw refused('EROFS'); });
const none = answer(() => undefined);
globalThis.fs = {
  constants: {O_WRONLY: 1, O_RDWR: 2, O_CREAT: 64, O_TRUNC: 512, O_APPEND: 1024, O_EXCL: 128, O_DIRECTORY: 65536},
  writeSync(fd, buf) {
    if (fd !== 1 && fd !== 2) throw refused('EBADF');
    output[fd].push(buf.slice());
    if (buf.includes(10)) flush(fd); // a line at a time
    return buf.length;
  },
  write: answer((fd, buf, offset, length) => globalThis.fs.writeSync(fd, buf.subarray(offset, offset + length))),
  open: answer((path, flags) => {
    if (flags & (1 | 2 | 64 | 512 | 1024)) throw refused('EROFS');
    files.set(next, {path, stat: stat(path), at: 0});
    return next++;
  }),
  close: answer((fd) => { files.delete(fd); }),
  fstat: answer((fd) => {
    if (!files.has(fd)) throw refused('EBADF');
    return files.get(fd).stat;
  }),
  stat: answer(stat),
  lstat: answer(stat),
  readdir: answer((path) => stat(path).names),
  read: answer((fd, buffer, offset, length, position) => {
    const f = files.get(fd);
    if (!f) throw refused('EBADF');
    f.bytes ??= new Uint8Array(get('/fs/read?path=' + encodeURIComponent(absolute(f.path)), 'arraybuffer'));
    const from = position ?? f.at;
    const part = f.bytes.subarray(from, from + length);
    buffer.set(part, offset);
    if (position === null) f.at += part.length;
    return part.length;
  }),
  fsync: none,
  chmod: readOnly, chown: readOnly, fchmod: readOnly, fchown: readOnly, ftruncate: readOnly, lchown: readOnly,
  link: readOnly, mkdir: readOnly, readlink: readOnly, rename: readOnly, rmdir: readOnly, symlink: readOnly,
  truncate: readOnly, unlink: readOnly, utimes: readOnly,
};
globalThis.process = {
  getuid: () => -1, getgid: () => -1, geteuid: () => -1, getegid: () => -1, getgroups: () => [],
  pid: 1, ppid: 0, umask: () => 0o022, cwd: () => start.cwd,
  chdir(path) { start.cwd = absolute(path); },
};
globalThis.path = {resolve: (...parts) => absolute(parts.join('/'))};

importScripts('/wasm_exec.js');
const go = new Go();
go.argv = start.argv;
go.env = start.env;
let status = 0;
go.exit = (code) => { status = code; };
WebAssembly.instantiateStreaming(fetch('/program.wasm'), go.importObject)
  .then((r) => go.run(r.instance))
  .then(() => { flush(1); flush(2); post('/exit?code=' + status, ''); },
    (err) => { flush(1); flush(2); post('/exit?code=2', String(err?.stack ?? err) + '\n'); });
