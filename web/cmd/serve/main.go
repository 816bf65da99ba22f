// Command serve builds the site into build/site and serves it.
//
//	go run ./web/cmd/serve [-addr host:port] [-tls] [-v]
//
// A browser gives the camera to secure pages only: localhost counts as one,
// another machine's address needs -tls.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"lqa/web/site"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "serve:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	addr := flag.String("addr", "", "address to listen on (default localhost:8080, with -tls :8443)")
	secure := flag.Bool("tls", false, "serve https with a self-signed certificate, for other devices on the network")
	verbose := flag.Bool("v", false, "print each request")
	flag.Parse()
	if flag.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flag.Arg(0))
	}

	root, err := site.Root(ctx)
	if err != nil {
		return err
	}
	dir := filepath.Join(root, "build", "site")
	fmt.Fprintln(os.Stderr, "building", dir)
	if err := site.Build(ctx, root, dir, os.Stderr); err != nil {
		return err
	}

	ln, err := listen(*addr, *secure)
	if err != nil {
		return err
	}
	port := ln.Addr().(*net.TCPAddr).Port
	if *secure {
		ips, err := site.Addresses()
		if err != nil {
			return err
		}
		cert, err := site.Certificate(filepath.Join(root, "build", "tls"), ips)
		if err != nil {
			return err
		}
		ln = tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2", "http/1.1"}})
		fmt.Printf("https://localhost:%d/\n", port)
		for _, ip := range ips {
			fmt.Printf("https://%s/\n", net.JoinHostPort(ip.String(), fmt.Sprint(port)))
		}
		fmt.Fprintln(os.Stderr, "The certificate is this machine's own: the browser asks once whether to go on.")
	} else {
		fmt.Printf("http://%s/\n", host(ln.Addr().(*net.TCPAddr)))
	}

	var log func(site.Request)
	if *verbose {
		log = func(r site.Request) { fmt.Fprintln(os.Stderr, r) }
	}
	server := &http.Server{Handler: site.NewServer(dir, log), ReadHeaderTimeout: 10 * time.Second}
	go func() {
		<-ctx.Done()
		server.Close()
	}()
	if err := server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// listen takes the given address, or the usual one, or where that is taken
// any free port.
func listen(addr string, secure bool) (net.Listener, error) {
	if addr != "" {
		return net.Listen("tcp", addr)
	}
	name, port := "localhost", "8080"
	if secure {
		name, port = "", "8443"
	}
	ln, err := net.Listen("tcp", net.JoinHostPort(name, port))
	if err != nil {
		fmt.Fprintf(os.Stderr, "port %s is taken (%v); using a free one\n", port, err)
		return net.Listen("tcp", net.JoinHostPort(name, "0"))
	}
	return ln, nil
}

// host names a loopback address localhost: browsers trust the name.
func host(a *net.TCPAddr) string {
	if a.IP.IsLoopback() || a.IP.IsUnspecified() {
		return fmt.Sprintf("localhost:%d", a.Port)
	}
	return a.String()
}
