//! PEM from untrusted places: Secrets, files, a `caBundle` written by another component.
//!
//! The input is one text, which is read as chain, key and bundle: each reader takes the blocks of its kind.

#![no_main]

use fastrand::Rng;
use jiff::Timestamp;
use libfuzzer_sys::{Corpus, fuzz_mutator, fuzz_target, fuzzer_mutate};
use pem::{Pem, encode_many, parse_many};
use taskgate_certs::{
    CaBundle, CertificateChain, San, SecretData, ServingCertificate, Validity, renewal_problem, serving_problem,
};
use taskgate_fuzz::init;

/// How many authorities a bundle has at most, besides its own.
const OTHERS: usize = 8;

/// Mutates the content of a block rather than its base64 text, three times in four.
fn mutate(data: &mut [u8], size: usize, max: usize, seed: u32) -> usize {
    let mut rng = Rng::with_seed(seed.into());
    let blocks = parse_many(&data[..size]).unwrap_or_default();
    if blocks.is_empty() || rng.u8(..4) == 0 {
        return fuzzer_mutate(data, size, max);
    }
    let mut blocks = blocks;
    let at = rng.usize(..blocks.len());
    match rng.u8(..6) {
        0 => drop(blocks.remove(at)),
        1 => blocks.push(blocks[at].clone()),
        2 => blocks.swap(0, at),
        _ => {
            let mut bytes = blocks[at].contents().to_vec();
            let length = bytes.len();
            bytes.resize(length + 64, 0);
            let length = fuzzer_mutate(&mut bytes, length, length + 64);
            bytes.truncate(length);
            blocks[at] = Pem::new(blocks[at].tag(), bytes);
        }
    }
    let text = encode_many(&blocks);
    if text.len() > max {
        return fuzzer_mutate(data, size, max);
    }
    data[..text.len()].copy_from_slice(text.as_bytes());
    text.len()
}

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| { mutate(data, size, max_size, seed) });

fuzz_target!(init: init(), |data: &[u8]| -> Corpus {
    let now = Timestamp::constant(1_796_040_000, 0);
    let name: San = "taskgate.taskgate-system.svc".parse().expect("a name");
    if let Ok(bundle) = CaBundle::from_pem(data) {
        assert!(bundle.is_within(data));
        assert!(bundle.roots().is_ok());
        let merged = bundle.with(data, now);
        assert!(bundle.is_within(merged.pem()));
        // A second merge adds nothing.
        assert_eq!(merged.with(merged.pem(), now), merged);
        let read = CaBundle::from_pem(merged.pem()).expect("written PEM can be read");
        assert_eq!(read, merged);
    }
    if let Some(known) = known() {
        let merged = known.with(data, now);
        let count = merged.roots().expect("anchors").len();
        assert!((1..=1 + OTHERS).contains(&count), "{count} authorities");
        assert_eq!(CaBundle::from_pem(merged.pem()).expect("written PEM can be read"), merged);
    }
    if let Some(validity) = Validity::of(data) {
        let _ = (validity.left(now), validity.is_nearly_over(now, 3));
    }
    if let Some(chain) = CertificateChain::from_pem(data) {
        let _ = (chain.is_trusted_by(data, now), chain.is_for(&name));
    }
    let certificate = ServingCertificate::from_pem(data, data, data);
    if let Ok(certificate) = &certificate {
        assert!(certificate.bundle().is_within(data));
    }
    let secret = SecretData {
        ca_crt: Some(data.to_vec()),
        ca_key: Some(data.to_vec()),
        tls_crt: Some(data.to_vec()),
        tls_key: Some(data.to_vec()),
    };
    let names = [name];
    let _ = renewal_problem(&secret, &names, now);
    // Certificates that pass the check can be served.
    assert!(serving_problem(&secret, &names, now).is_some() || certificate.is_ok(), "{certificate:?}");
    Corpus::Keep
});

/// A fixed bundle.
fn known() -> Option<CaBundle> {
    thread_local! {
        static KNOWN: Option<CaBundle> = CaBundle::from_pem(include_bytes!("authority.pem")).ok();
    }
    KNOWN.with(Clone::clone)
}
