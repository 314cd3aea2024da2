//! The Secret with an authority and the serving certificate it issued.

use std::{collections::BTreeMap, fmt};

use k8s_openapi::{ByteString, api::core::v1::Secret};

/// Key of the authority's certificate, PEM.
pub const CA_CRT: &str = "ca.crt";
/// Key of the authority's private key, PKCS #8 PEM.
pub const CA_KEY: &str = "ca.key";
/// Key of the serving certificate, PEM.
pub const TLS_CRT: &str = "tls.crt";
/// Key of the serving certificate's private key, PKCS #8 PEM.
pub const TLS_KEY: &str = "tls.key";

/// The entries of the Secret that taskgate uses. `Debug` prints no key.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SecretData {
    /// [`CA_CRT`].
    pub ca_crt: Option<Vec<u8>>,
    /// [`CA_KEY`].
    pub ca_key: Option<Vec<u8>>,
    /// [`TLS_CRT`].
    pub tls_crt: Option<Vec<u8>>,
    /// [`TLS_KEY`].
    pub tls_key: Option<Vec<u8>>,
}

impl SecretData {
    /// Writes the entries into `data`; others stay.
    pub(crate) fn write_to(&self, data: &mut BTreeMap<String, ByteString>) {
        for (key, value) in [
            (CA_CRT, &self.ca_crt),
            (CA_KEY, &self.ca_key),
            (TLS_CRT, &self.tls_crt),
            (TLS_KEY, &self.tls_key),
        ] {
            if let Some(value) = value {
                data.insert(key.to_owned(), ByteString(value.clone()));
            }
        }
    }
}

impl From<&Secret> for SecretData {
    fn from(secret: &Secret) -> Self {
        let entry = |key| Some(secret.data.as_ref()?.get(key)?.0.clone());
        Self {
            ca_crt: entry(CA_CRT),
            ca_key: entry(CA_KEY),
            tls_crt: entry(TLS_CRT),
            tls_key: entry(TLS_KEY),
        }
    }
}

impl fmt::Debug for SecretData {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = |entry: &Option<Vec<u8>>| entry.as_ref().map(Vec::len);
        formatter
            .debug_struct("SecretData")
            .field("ca_crt_bytes", &size(&self.ca_crt))
            .field("ca_key_bytes", &size(&self.ca_key))
            .field("tls_crt_bytes", &size(&self.tls_crt))
            .field("tls_key_bytes", &size(&self.tls_key))
            .finish()
    }
}
