# ruff: noqa: E501, S104 - a table; nothing is bound to these
"""URLs that lead to private addresses, or are not valid, in over 200 forms. Names resolve as in `NAMES`."""

#: Addresses by name, for the test's own resolver; any other name is not found.
NAMES: dict[str, list[str]] = {
    "localhost": ["127.0.0.1", "::1"],
    "localhost.": ["127.0.0.1"],
    "LOCALHOST": ["127.0.0.1"],
    "loop.example": ["127.0.0.1"],
    "loop6.example": ["::1"],
    "mapped.example": ["::ffff:127.0.0.1"],
    "mixed.example": ["93.184.216.34", "127.0.0.1"],
    "mixed6.example": ["2606:4700::1111", "::1"],
    "lan.example": ["192.168.1.10"],
    "lan6.example": ["fd00::10"],
    "link.example": ["169.254.169.254"],
    "link6.example": ["fe80::1%eth0"],
    "metadata.google.internal": ["169.254.169.254"],
    "nat64.example": ["64:ff9b::7f00:1"],
    "teredo.example": ["2001:0:7f00:1::"],
    "six-to-four.example": ["2002:7f00:1::"],
    "cgnat.example": ["100.64.0.1"],
    "any.example": ["0.0.0.0"],
    "any6.example": ["::"],
    "multicast.example": ["224.0.0.1"],
    "broadcast.example": ["255.255.255.255"],
    "xn--lokal-example": ["10.0.0.1"],
    "127.0.0.1.nip.io": ["127.0.0.1"],
    "localtest.me": ["127.0.0.1"],
}

#: Addresses of loopback, private and other special networks, in their usual form.
PLAIN = [
    "127.0.0.1", "127.0.0.2", "127.1.2.3", "127.255.255.255", "10.0.0.1", "10.255.255.255", "172.16.0.1",
    "172.31.255.255", "192.168.0.1", "192.168.255.255", "169.254.169.254", "169.254.0.1", "100.64.0.1",
    "100.127.255.255", "0.0.0.0", "0.1.2.3", "192.0.0.1", "192.0.2.1", "198.18.0.1", "198.19.255.255", "198.51.100.1",
    "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
    "[::1]", "[::]", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]", "[::ffff:10.0.0.1]", "[::ffff:169.254.169.254]",
    "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:7f00:1]", "[::127.0.0.1]", "[fc00::1]", "[fd12:3456::1]", "[fe80::1]",
    "[fe80::1%25eth0]", "[febf::1]", "[ff02::1]", "[2001:db8::1]", "[64:ff9b::127.0.0.1]", "[64:ff9b::10.0.0.1]",
    "[64:ff9b:1::7f00:1]", "[2002:7f00:1::]", "[2002:a00:1::1]", "[2001:0:7f00:1::1]", "[100::1]", "[fec0::1]", "[::ffff:0:127.0.0.1]", "[5f00::1]",
]  # fmt: skip

#: The same addresses in forms that some libraries accept; the system's resolver resolves each.
ODD = [
    "2130706433", "0x7f000001", "0x7f.0.0.1", "0x7f.1", "0177.0.0.1", "0177.0.0.01", "017700000001", "127.1", "127.0.1",
    "0", "0x0", "00000000000", "3232235521", "0xc0a80001", "0300.0250.0.1", "2852039166", "0xa9fea9fe", "0xA9.0xFE.0xA9.0xFE",
    "0251.0376.0251.0376", "127.0.0.1.", "127.000.000.001", "0x7f.0x0.0x0.0x1", "1.0.0.127.in-addr.arpa",
    "[::ffff:0x7f000001]", "[::1%25lo]", "[::0001]", "[0000:0000:0000:0000:0000:0000:0000:0001]",
]  # fmt: skip

NAMED = list(NAMES)

#: URLs that are invalid before any name is resolved.
SHAPES = [
    "http://a..b/", "http://.example.com/", "http://" + "a" * 64 + ".example.com/", "http://example.com/\x7f",
    "", " ", "localhost", "//localhost/", "/hook", "http:", "http://", "http:///hook", "https://?x", "http:localhost",
    "file:///etc/passwd", "ftp://localhost/", "gopher://127.0.0.1:6379/_INFO", "dict://127.0.0.1:11211/stat",
    "ldap://127.0.0.1/", "jar:http://127.0.0.1!/", "data:text/plain,x", "javascript:alert(1)", "unix:///var/run/x.sock",
    "http+unix://%2Fvar%2Frun%2Fdocker.sock/info", "ws://localhost/", "HTTP", "http//localhost",
    "http://user@example.com/", "http://user:pw@example.com/", "http://example.com@127.0.0.1/",
    "http://127.0.0.1@example.com/", "http://example.com:80@127.0.0.1/", "http://:pw@example.com/",
    "http://example.com:22/", "http://example.com:6379/", "http://example.com:65536/", "http://example.com:-1/",
    "http://example.com:x/", "http://example.com:8080/", "http://[::1", "http://::1/", "http://[]/", "http://[x]/",
    "http://exam ple.com/", "http://example.com/a b", "http://example.com\\@127.0.0.1/", "http:\\\\127.0.0.1\\",
    "http://example.com/\r\nHost: 127.0.0.1", "http://example.com/\n", "http://example.com/\t", "\thttp://example.com/",
    "http://example.com/\x00", "http://\u2460\u2461\u2466.0.0.1/", "http://\uff11\uff12\uff17.0.0.1/",
    "http://127\u30020\u30020\u30021/", "http://ex\u00e4mple.com/", "http://\u202e127.0.0.1/",
    "http://example.com/" + "a" * 2000,
]  # fmt: skip

URLS = (
    [f"{scheme}://{host}{tail}" for host in PLAIN for scheme, tail in (("http", "/"), ("https", ":443/hook?x=1"))]
    + [f"http://{host}/" for host in (*ODD, *NAMED)]
    + [f"https://{host}:443/hook" for host in NAMED]
    + SHAPES
)
