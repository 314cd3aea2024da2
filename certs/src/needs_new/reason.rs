//! Why certificates are not fit to be served, and what has to be replaced then.

use std::fmt;

use super::RSA_BITS;
use crate::{CA_CRT, CA_KEY, TLS_CRT, TLS_KEY};

/// Why a Secret's certificates must be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The Secret does not exist.
    NoSecret,
    /// The Secret lacks this key.
    Missing(&'static str),
    /// What stands under this key does not parse.
    Unreadable(&'static str),
    /// The authority's certificate may not sign others.
    NotAnAuthority,
    /// The authority's key belongs to another certificate.
    CaKeyMismatch,
    /// The authority becomes valid in the future.
    CaNotYetValid,
    /// The authority has expired.
    CaExpired,
    /// The authority has less than a third of its life left.
    CaExpiresSoon,
    /// The serving certificate's key is RSA with too few bits.
    WeakKey,
    /// The serving certificate's key belongs to another certificate.
    LeafKeyMismatch,
    /// The serving certificate becomes valid in the future.
    LeafNotYetValid,
    /// The serving certificate has expired.
    LeafExpired,
    /// The serving certificate has less than a third of its life left.
    LeafExpiresSoon,
    /// The serving certificate is valid for longer than its authority.
    LeafOutlivesCa,
    /// The serving certificate is not one that the authority signed for a server.
    LeafNotTrusted,
    /// The serving certificate lacks a name that clients dial.
    WrongNames,
}

/// What has to be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The authority, and the serving certificate with it.
    Authority,
    /// The serving certificate; clients go on trusting the authority.
    Leaf,
}

impl Reason {
    /// What has to be replaced.
    pub fn scope(self) -> Scope {
        match self {
            Self::NoSecret
            | Self::Missing(CA_CRT | CA_KEY)
            | Self::Unreadable(CA_CRT | CA_KEY)
            | Self::NotAnAuthority
            | Self::CaKeyMismatch
            | Self::CaNotYetValid
            | Self::CaExpired
            | Self::CaExpiresSoon => Scope::Authority,
            Self::Missing(_)
            | Self::Unreadable(_)
            | Self::WeakKey
            | Self::LeafKeyMismatch
            | Self::LeafNotYetValid
            | Self::LeafExpired
            | Self::LeafExpiresSoon
            | Self::LeafOutlivesCa
            | Self::LeafNotTrusted
            | Self::WrongNames => Scope::Leaf,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSecret => formatter.write_str("there is no such Secret"),
            Self::Missing(key) => write!(formatter, "{key} is missing"),
            Self::Unreadable(key) => write!(formatter, "{key} does not parse"),
            Self::NotAnAuthority => write!(formatter, "{CA_CRT} may not sign certificates"),
            Self::CaKeyMismatch => write!(formatter, "{CA_KEY} is not the key of {CA_CRT}"),
            Self::CaNotYetValid => formatter.write_str("the authority is not valid yet"),
            Self::CaExpired => formatter.write_str("the authority has expired"),
            Self::CaExpiresSoon => formatter.write_str("the authority expires soon"),
            Self::WeakKey => write!(formatter, "{TLS_CRT} has an RSA key of less than {RSA_BITS} bits"),
            Self::LeafKeyMismatch => write!(formatter, "{TLS_KEY} is not the key of {TLS_CRT}"),
            Self::LeafNotYetValid => formatter.write_str("the serving certificate is not valid yet"),
            Self::LeafExpired => formatter.write_str("the serving certificate has expired"),
            Self::LeafExpiresSoon => formatter.write_str("the serving certificate expires soon"),
            Self::LeafOutlivesCa => formatter.write_str("the serving certificate outlives its authority"),
            Self::LeafNotTrusted => formatter.write_str("the serving certificate is not signed by the authority"),
            Self::WrongNames => formatter.write_str("the serving certificate lacks a name"),
        }
    }
}
