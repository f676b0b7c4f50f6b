// The peer "go-socks5": armon's library with user/password, dialling directly or through a SOCKS5 server.
package main

import (
	"context"
	"log"
	"net"
	"os"

	"github.com/armon/go-socks5"
	"golang.org/x/net/proxy"
)

// usage: gosocks5 LISTEN USER PASSWORD [UPSTREAM]
func main() {
	config := &socks5.Config{
		Credentials: socks5.StaticCredentials{os.Args[2]: os.Args[3]},
		Logger:      log.New(os.Stderr, "", 0),
	}
	if len(os.Args) > 4 {
		auth := &proxy.Auth{User: os.Args[2], Password: os.Args[3]}
		upstream, err := proxy.SOCKS5("tcp", os.Args[4], auth, proxy.Direct)
		if err != nil {
			log.Fatal(err)
		}
		config.Dial = func(_ context.Context, network, address string) (net.Conn, error) {
			return upstream.Dial(network, address)
		}
	}
	server, err := socks5.New(config)
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(server.ListenAndServe("tcp", os.Args[1]))
}
