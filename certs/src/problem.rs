//! Why certificates must be replaced or cannot be served.
//!
//! Imports the keys of the Secret. Called by the certificate types, `renewal` and `source`.

use crate::secret::{CA_CRT, CA_KEY, TLS_CRT, TLS_KEY};

/// The shortest RSA key that clients accept, in bits.
pub(crate) const RSA_BITS: usize = 2048;

/// Why a Secret's certificates must be replaced or cannot be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum CertificateProblem {
    /// The Secret does not exist.
    #[error("there is no such Secret")]
    NoSecret,
    /// The Secret lacks this key.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// The value of this key does not parse.
    #[error("{0} does not parse")]
    Unreadable(&'static str),
    /// The authority's certificate may not sign others.
    #[error("{CA_CRT} may not sign certificates")]
    NotAnAuthority,
    /// The authority's key belongs to another certificate.
    #[error("{CA_KEY} is not the key of {CA_CRT}")]
    CaKeyMismatch,
    /// The authority becomes valid in the future.
    #[error("the authority is not valid yet")]
    CaNotYetValid,
    /// The authority has expired.
    #[error("the authority has expired")]
    CaExpired,
    /// The authority has less than a third of its life left.
    #[error("the authority expires soon")]
    CaExpiresSoon,
    /// The serving certificate's key is RSA with too few bits.
    #[error("{TLS_CRT} has an RSA key of less than {RSA_BITS} bits")]
    WeakKey,
    /// The serving certificate's key belongs to another certificate.
    #[error("{TLS_KEY} is not the key of {TLS_CRT}")]
    LeafKeyMismatch,
    /// The serving certificate becomes valid in the future.
    #[error("the serving certificate is not valid yet")]
    LeafNotYetValid,
    /// The serving certificate has expired.
    #[error("the serving certificate has expired")]
    LeafExpired,
    /// The serving certificate has less than a third of its life left.
    #[error("the serving certificate expires soon")]
    LeafExpiresSoon,
    /// The serving certificate is valid for longer than its authority.
    #[error("the serving certificate outlives its authority")]
    LeafOutlivesCa,
    /// The authority did not sign the serving certificate for a server.
    #[error("the serving certificate is not signed by the authority")]
    LeafNotTrusted,
    /// The serving certificate lacks a name that clients dial.
    #[error("the serving certificate lacks a name")]
    WrongNames,
}

impl CertificateProblem {
    /// Whether the authority must be replaced, and the serving certificate with it; otherwise only the serving certificate, under the
    /// same authority.
    pub fn is_of_authority(self) -> bool {
        matches!(
            self,
            Self::NoSecret
                | Self::Missing(CA_CRT | CA_KEY)
                | Self::Unreadable(CA_CRT | CA_KEY)
                | Self::NotAnAuthority
                | Self::CaKeyMismatch
                | Self::CaNotYetValid
                | Self::CaExpired
                | Self::CaExpiresSoon
        )
    }
}
