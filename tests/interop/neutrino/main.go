// A light client (BIP157) of one peer, through a SOCKS5 proxy; prints the height it knows.
//
//	light FOLDER PROXY PEER
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/btcsuite/btcd/chaincfg/v2"
	"github.com/btcsuite/btcwallet/walletdb"
	_ "github.com/btcsuite/btcwallet/walletdb/bdb"
	"github.com/btcsuite/go-socks/socks"
	"github.com/lightninglabs/neutrino"
)

func main() {
	dir, proxy, peer := os.Args[1], os.Args[2], os.Args[3]
	db, err := walletdb.Create("bdb", dir+"/neutrino.db", true, time.Minute, false)
	if err != nil {
		panic(err)
	}
	through := &socks.Proxy{Addr: proxy, Username: "light", Password: "x"}
	chain, err := neutrino.NewChainService(neutrino.Config{
		DataDir:      dir,
		Database:     db,
		ChainParams:  chaincfg.RegressionNetParams,
		ConnectPeers: []string{peer},
		Dialer: func(addr net.Addr) (net.Conn, error) {
			return through.Dial("tcp", addr.String())
		},
	})
	if err != nil {
		panic(err)
	}
	if err := chain.Start(context.Background()); err != nil {
		panic(err)
	}
	for {
		if best, err := chain.BestBlock(); err == nil {
			fmt.Println("height", best.Height)
		}
		time.Sleep(100 * time.Millisecond)
	}
}
