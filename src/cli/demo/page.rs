//! What the demo's backend answers: what it was handed, as text or JSON.

#![forbid(unsafe_code)]

use std::fmt::Write;

use super::proxy_header::ProxyHeader;

/// What the backend knows of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen<'a> {
    pub(super) proxy: &'a ProxyHeader,
    pub(super) method: &'a str,
    pub(super) target: &'a str,
    pub(super) body_bytes: u64,
    /// Which request of its connection it is, from 1.
    pub(super) number_on_connection: u64,
}

impl Seen<'_> {
    /// The facts of the header by their names in JSON and in the text.
    fn facts(&self) -> [(&'static str, &'static str, Option<String>); 6] {
        let tls = self.proxy.tls.as_ref();
        let addresses = self.proxy.addresses;
        [
            ("client", "client address", addresses.map(|both| both.client.to_string())),
            ("destination", "connected to", addresses.map(|both| both.destination.to_string())),
            ("server_name", "server name (SNI)", self.proxy.authority.clone()),
            ("alpn", "protocol (ALPN)", self.proxy.alpn.clone()),
            ("tls_version", "TLS version", tls.and_then(|tls| tls.version.clone())),
            ("cipher", "cipher suite", tls.and_then(|tls| tls.cipher.clone())),
        ]
    }
}

/// For people.
pub(super) fn text(seen: &Seen<'_>) -> String {
    let mut page = String::from(
        "This is the plaintext backend of the forebay demo.\n\n\
         TLS ended in forebay, which handed over this with the PROXY protocol:\n\n",
    );
    for (_, name, value) in seen.facts() {
        // Names and protocols come from the client: nothing of theirs may move a
        // terminal's cursor.
        let value = value.as_deref().unwrap_or("-").escape_debug().to_string();
        let _ = writeln!(page, "  {name:<18} {value}");
    }
    let Seen { method, target, body_bytes, number_on_connection, .. } = seen;
    let target = target.escape_debug();
    let _ = write!(
        page,
        "\nand these bytes of yours, decrypted:\n\n  \
         {:<18} {method} {target}\n  \
         {:<18} {body_bytes} bytes\n  \
         {:<18} {number_on_connection}\n",
        "request", "body", "on this connection"
    );
    page
}

/// For programs.
pub(super) fn json(seen: &Seen<'_>) -> String {
    let mut page = String::from("{\n");
    for (key, _, value) in seen.facts() {
        let value = value.map_or_else(|| "null".to_owned(), |value| json_string(&value));
        let _ = writeln!(page, "  \"{key}\": {value},");
    }
    let _ = write!(
        page,
        "  \"method\": {},\n  \"target\": {},\n  \"body_bytes\": {},\n  \
         \"number_on_connection\": {}\n}}\n",
        json_string(seen.method),
        json_string(seen.target),
        seen.body_bytes,
        seen.number_on_connection
    );
    page
}

/// A JSON string (RFC 8259 section 7).
fn json_string(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            control if control < ' ' => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(control));
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::super::proxy_header::{self, tests::full_header};
    use super::*;

    fn seen(proxy: &ProxyHeader) -> Seen<'_> {
        Seen { proxy, method: "GET", target: "/a\"b", body_bytes: 3, number_on_connection: 2 }
    }

    #[test]
    fn both_forms_show_every_fact() {
        let proxy = proxy_header::decode(&full_header()).expect("a header");
        for page in [text(&seen(&proxy)), json(&seen(&proxy))] {
            for fact in [
                "192.0.2.7:4711",
                "10.0.0.1:8443",
                "shop.example",
                "http/1.1",
                "TLSv1.3",
                "TLS_AES_128_GCM_SHA256",
                "GET",
            ] {
                assert!(page.contains(fact), "{fact} in {page}");
            }
        }
    }

    #[test]
    fn what_was_not_handed_over_is_null_in_json() {
        let proxy = ProxyHeader::default();
        let page = json(&seen(&proxy));
        assert!(page.contains("\"client\": null"), "{page}");
        assert!(page.contains("\"target\": \"/a\\\"b\""), "{page}");
    }

    #[test]
    fn control_characters_reach_neither_terminal_nor_json() {
        let proxy =
            ProxyHeader { authority: Some("a\u{1b}[2Jb\n".to_owned()), ..ProxyHeader::default() };
        assert!(!text(&seen(&proxy)).contains('\u{1b}'));
        assert!(json(&seen(&proxy)).contains("\"a\\u001b[2Jb\\u000a\""));
    }
}
