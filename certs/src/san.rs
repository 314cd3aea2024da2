//! A subject alternative name of the serving certificate.

use std::{borrow::Cow, fmt, net::IpAddr, str::FromStr};

use rustls::pki_types::ServerName;

/// A DNS name or an IP address that clients dial.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct San(ServerName<'static>);

/// The text is neither a DNS name nor an IP address.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is neither a DNS name nor an IP address")]
pub struct InvalidSan(String);

impl San {
    /// The names by which the API server and others in the cluster may dial a Service. The API server uses the first.
    pub fn of_service(service: &str, namespace: &str) -> Result<Vec<Self>, InvalidSan> {
        [
            format!("{service}.{namespace}.svc"),
            format!("{service}.{namespace}.svc.cluster.local"),
        ]
        .iter()
        .map(|name| name.parse())
        .collect()
    }

    /// The name as rustls represents it.
    pub fn server_name(&self) -> &ServerName<'static> {
        &self.0
    }

    /// The name as text.
    pub fn as_str(&self) -> Cow<'_, str> {
        self.0.to_str()
    }
}

impl FromStr for San {
    type Err = InvalidSan;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        ServerName::try_from(text.to_owned())
            .map(Self)
            .map_err(|_| InvalidSan(text.to_owned()))
    }
}

impl From<IpAddr> for San {
    fn from(address: IpAddr) -> Self {
        Self(address.into())
    }
}

impl fmt::Display for San {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_parse_and_invalid_text_does_not() {
        assert!(matches!(
            "127.0.0.1".parse::<San>().unwrap().0,
            ServerName::IpAddress(_)
        ));
        assert!(matches!("::1".parse::<San>().unwrap().0, ServerName::IpAddress(_)));
        assert!(matches!("a.b.svc".parse::<San>().unwrap().0, ServerName::DnsName(_)));
        for bad in ["", "a b", "*.a.b", "a..b", "ä"] {
            assert!(bad.parse::<San>().is_err(), "{bad}");
        }
    }
}
