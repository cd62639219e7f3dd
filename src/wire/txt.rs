//! The DNS-SD TXT record: how a node tells multicast listeners who it is (protocol.md, 7).
//!
//! In the open network it carries `txtvers=1` and `id`. In a private network nothing identifies the device to
//! strangers: the record carries `txtvers=1` and `k`, a nonce and the id sealed under a key that only members have.

use data_encoding::BASE64URL_NOPAD;
use thiserror::Error;

use crate::id::NodeId;
use crate::wire::packet::size;

/// The DNS-SD type of our service.
pub const SERVICE: &str = "_atonce._udp.local.";

/// A nonce and the id of a node under XChaCha20-Poly1305.
pub const SEALED_BYTES: usize = size::NONCE + 32 + size::TAG;

/// What an advert says of who sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Txt {
    /// The id in clear: a node of the open network.
    Open(NodeId),
    /// The id for members only.
    Sealed([u8; SEALED_BYTES]),
}

/// Why a TXT record is not one of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadTxt {
    /// `txtvers` is missing or names a version we do not know.
    #[error("no txtvers=1")]
    Version,
    /// Neither a readable `id` nor a readable `k`.
    #[error("neither id nor k can be read")]
    Content,
}

impl Txt {
    /// The properties of the record, in their order.
    pub fn properties(&self) -> [(&'static str, String); 2] {
        let content = match self {
            Self::Open(id) => ("id", id.to_string()),
            Self::Sealed(sealed) => ("k", BASE64URL_NOPAD.encode(sealed)),
        };
        [("txtvers", "1".to_owned()), content]
    }

    /// Reads the properties of a record; `property` looks one up.
    pub fn parse<'a>(property: impl Fn(&str) -> Option<&'a str>) -> Result<Self, BadTxt> {
        if property("txtvers") != Some("1") {
            return Err(BadTxt::Version);
        }
        if let Some(id) = property("id") {
            return id.parse().map(Self::Open).map_err(|_| BadTxt::Content);
        }
        let sealed = property("k").ok_or(BadTxt::Content)?;
        let sealed = BASE64URL_NOPAD.decode(sealed.as_bytes()).map_err(|_| BadTxt::Content)?;
        sealed.try_into().map(Self::Sealed).map_err(|_| BadTxt::Content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits;

    fn reread(txt: &Txt) -> Result<Txt, BadTxt> {
        let properties = txt.properties();
        Txt::parse(|key| properties.iter().find(|(k, _)| *k == key).map(|(_, v)| v.as_str()))
    }

    #[test]
    fn both_kinds_read_back_as_themselves_and_are_short() {
        for txt in [Txt::Open(NodeId([1; 32])), Txt::Sealed([2; SEALED_BYTES])] {
            assert_eq!(reread(&txt), Ok(txt.clone()));
            let bytes: usize = txt.properties().iter().map(|(key, value)| key.len() + value.len() + 2).sum();
            assert!(bytes <= limits::TXT_BYTES);
        }
    }

    #[test]
    fn a_record_of_another_version_or_with_other_content_is_refused() {
        assert_eq!(Txt::parse(|_| None), Err(BadTxt::Version));
        assert_eq!(Txt::parse(|key| (key == "txtvers").then_some("2")), Err(BadTxt::Version));
        assert_eq!(Txt::parse(|key| (key == "txtvers").then_some("1")), Err(BadTxt::Content));
        assert_eq!(Txt::parse(|key| Some(if key == "txtvers" { "1" } else { "x" })), Err(BadTxt::Content));
    }
}
