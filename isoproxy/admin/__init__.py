"""The admin socket: how `isoproxy status`, `newnym` and the like reach a running isoproxy.

Theory of operation
    A unix socket of mode 0600.  A client sends one JSON object in one line,
    `{"request": "status", ...}`, and gets one line back: `{"ok": true, ...}` or
    `{"ok": false, "error": "..."}`; it may then ask again.  Parts of isoproxy register
    what can be asked; the `server` knows nothing of it.  The `client` is a module without
    an event loop: a command that only asks starts in a fraction of the time.
"""
