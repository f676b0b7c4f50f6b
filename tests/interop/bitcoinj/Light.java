// A light client of one peer on regtest, through a SOCKS5 proxy; prints the height it knows.
//
//     java Light.java PEER PROXY

import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.Proxy;
import java.net.Socket;
import javax.net.SocketFactory;

import org.bitcoinj.base.BitcoinNetwork;
import org.bitcoinj.core.BlockChain;
import org.bitcoinj.core.PeerAddress;
import org.bitcoinj.core.PeerGroup;
import org.bitcoinj.core.listeners.DownloadProgressTracker;
import org.bitcoinj.net.BlockingClientManager;
import org.bitcoinj.params.RegTestParams;
import org.bitcoinj.store.MemoryBlockStore;

public class Light {
    static InetSocketAddress address(String text) {
        int colon = text.lastIndexOf(':');
        return new InetSocketAddress(
            text.substring(0, colon), Integer.parseInt(text.substring(colon + 1)));
    }

    /** Sockets that connect through the proxy. */
    static class Proxied extends SocketFactory {
        final Proxy proxy;

        Proxied(InetSocketAddress proxy) {
            this.proxy = new Proxy(Proxy.Type.SOCKS, proxy);
        }

        public Socket createSocket() {
            return new Socket(proxy);
        }

        public Socket createSocket(String host, int port) throws IOException {
            throw new IOException("not connected here");
        }

        public Socket createSocket(InetAddress host, int port) throws IOException {
            throw new IOException("not connected here");
        }

        public Socket createSocket(String host, int port, InetAddress from, int at)
                throws IOException {
            throw new IOException("not connected here");
        }

        public Socket createSocket(InetAddress host, int port, InetAddress from, int at)
                throws IOException {
            throw new IOException("not connected here");
        }
    }

    public static void main(String[] arguments) throws Exception {
        var network = BitcoinNetwork.REGTEST;
        var store = new MemoryBlockStore(RegTestParams.get().getGenesisBlock());
        var chain = new BlockChain(network, store);
        var through = new BlockingClientManager(new Proxied(address(arguments[1])));
        var group = new PeerGroup(network, chain, through) {};
        group.setUseLocalhostPeerWhenPossible(false);
        group.addAddress(PeerAddress.simple(address(arguments[0])));
        group.setMaxConnections(1);
        group.start();
        group.startBlockChainDownload(new DownloadProgressTracker());
        while (true) {
            System.out.println("height " + chain.getBestChainHeight());
            Thread.sleep(200);
        }
    }
}
