// Firefox through isoproxy, for programs that send no user name: see docs/howto/firefox.md.
// Put this file into the directory of a profile of its own (about:profiles, "Root Directory").

// Everything goes to isoproxy, names unresolved, and nothing past it when it is down.
user_pref("network.proxy.type", 1);
user_pref("network.proxy.socks", "127.0.0.1");
user_pref("network.proxy.socks_port", 9251);
user_pref("network.proxy.socks_version", 5);
user_pref("network.proxy.socks_remote_dns", true);
user_pref("network.proxy.socks5_remote_dns", true);
user_pref("network.proxy.no_proxies_on", "");
user_pref("network.proxy.allow_bypass", false);
user_pref("network.proxy.failover_direct", false);
user_pref("network.trr.mode", 5);
user_pref("media.peerconnection.enabled", false);

// A name typed in the address bar is a name, not words for a search engine.
user_pref("browser.fixup.domainsuffixwhitelist.bit", true);
user_pref("browser.fixup.domainsuffixwhitelist.onion", true);
user_pref("network.dns.blockDotOnion", false);
