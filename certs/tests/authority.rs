//! The authority and the injector on a real API server.

use std::{
    collections::BTreeMap,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, ensure};
use futures::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    ByteString,
    api::{admissionregistration::v1::ValidatingWebhookConfiguration, core::v1::Secret},
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams},
};
use serde_json::{Value, json};
use taskgate_certs::{
    Authority, AuthorityConfig, BundleManager, CA_FIELD_MANAGER, CaBundle, CertificateProblem, InjectionState,
    Injector, Lifetimes, Resolver, San, SecretData, ServingCertificate, TLS_CRT, WebhookConfigurationKind, issue_all,
    renewal_problem,
};
use taskgate_e2e::{ControlPlane, PATIENCE, await_object, eventually, eventually_that, never};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const SECRET: &str = "taskgate-certificates";

fn config(namespace: &str) -> AuthorityConfig {
    AuthorityConfig {
        namespace: namespace.to_owned(),
        secret: SECRET.to_owned(),
        names: San::of_service("taskgate", namespace).expect("a legal name"),
        labels: vec![("app.kubernetes.io/part-of".to_owned(), "taskgate".to_owned())],
        lifetimes: Lifetimes::default(),
        clock: Timestamp::now,
    }
}

fn authority(client: &Client, namespace: &str) -> Authority {
    Authority::new(client.clone(), config(namespace))
}

/// The race between replicas: many of them find no Secret at the same moment.
#[tokio::test(flavor = "multi_thread")]
async fn forty_replicas_that_find_no_secret_agree_on_one() -> anyhow::Result<()> {
    let cp = ControlPlane::shared().await?;
    let ns = cp.namespace("authority").await?;
    let mut replicas = JoinSet::new();
    for _ in 0..40 {
        let authority = authority(&cp.client(), ns.name());
        replicas.spawn(async move { authority.ensure(Timestamp::now()).await });
    }
    let mut seen = Vec::new();
    while let Some(replica) = replicas.join_next().await {
        seen.push(SecretData::from(&replica??));
    }
    let stored = SecretData::from(&ns.api::<Secret>().get(SECRET).await?);
    assert!(seen.iter().all(|data| *data == stored));
    assert_eq!(
        renewal_problem(&stored, &config(ns.name()).names, Timestamp::now()),
        None
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn forty_replicas_that_find_a_bad_secret_agree_on_its_replacement() -> anyhow::Result<()> {
    let cp = ControlPlane::shared().await?;
    let ns = cp.namespace("authority").await?;
    // Expired a year ago, with an entry and a label of another component.
    let long_ago = Timestamp::now() - SignedDuration::from_hours(12 * 365 * 24);
    let expired = issue_all(&config(ns.name()).names, Lifetimes::default(), long_ago)?;
    let text = |entry: Option<Vec<u8>>| String::from_utf8(entry.unwrap_or_default()).unwrap_or_default();
    let secret: Secret = serde_json::from_value(json!({
        "metadata": {"name": SECRET, "labels": {"theirs": "kept"}}, "type": "kubernetes.io/tls",
        "stringData": {"ca.crt": text(expired.ca_crt), "ca.key": text(expired.ca_key), "tls.crt": text(expired.tls_crt),
            "tls.key": text(expired.tls_key), "note": "kept"},
    }))?;
    ns.api::<Secret>().create(&PostParams::default(), &secret).await?;

    let mut replicas = JoinSet::new();
    for _ in 0..40 {
        let authority = authority(&cp.client(), ns.name());
        replicas.spawn(async move { authority.ensure(Timestamp::now()).await });
    }
    let mut seen = Vec::new();
    while let Some(replica) = replicas.join_next().await {
        seen.push(replica??.resource_version());
    }
    let stored = ns.api::<Secret>().get(SECRET).await?;
    assert!(
        seen.iter().all(|version| *version == stored.resource_version()),
        "{seen:?}"
    );
    assert_eq!(
        renewal_problem(&(&stored).into(), &config(ns.name()).names, Timestamp::now()),
        None
    );
    assert_eq!(stored.labels().get("theirs").map(String::as_str), Some("kept"));
    assert!(stored.data.unwrap_or_default().contains_key("note"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_replica_follows_the_secret_and_recreates_it() -> anyhow::Result<()> {
    let cp = ControlPlane::shared().await?;
    let ns = cp.namespace("authority").await?;
    let secrets = ns.api::<Secret>();
    let (resolver, shutdown) = (Resolver::new(), CancellationToken::new());
    let running = tokio::spawn(authority(&cp.client(), ns.name()).run(resolver.clone(), shutdown.clone()));
    // No API server calls: there are no configurations of this name. So a new authority is served at once.
    let injector = injector(cp, "absent.taskgate.test", &resolver);
    let following = tokio::spawn(injector.run(shutdown.clone()));
    let serves = |what: &'static str, wanted: Vec<u8>| {
        let resolver = resolver.clone();
        async move {
            eventually_that(
                what,
                PATIENCE,
                || async { Ok(served(&resolver)) },
                |bundle| bundle.as_deref().is_some_and(|bundle| bundle.starts_with(&wanted)),
            )
            .await
        }
    };

    let made = await_object(&secrets, SECRET, "holds certificates", |_| true).await?;
    serves("the new authority is served", ca(&made)?).await?;

    // Another authority is written manually: it is good, so it is served and stays.
    let other = issue_all(&config(ns.name()).names, Lifetimes::default(), Timestamp::now())?;
    let entries = |data: &SecretData| -> anyhow::Result<Value> {
        let entry = |bytes: &Option<Vec<u8>>| bytes.clone().map(ByteString).context("issued");
        Ok(
            json!({"data": {"ca.crt": entry(&data.ca_crt)?, "ca.key": entry(&data.ca_key)?,
            "tls.crt": entry(&data.tls_crt)?, "tls.key": entry(&data.tls_key)?}}),
        )
    };
    secrets
        .patch(SECRET, &PatchParams::default(), &Patch::Merge(entries(&other)?))
        .await?;
    serves(
        "the manually written authority is served",
        other.ca_crt.clone().context("issued")?,
    )
    .await?;

    // A broken leaf is replaced under the same authority.
    let broken = json!({"data": {TLS_CRT: ByteString(b"garbage".to_vec())}});
    secrets
        .patch(SECRET, &PatchParams::default(), &Patch::Merge(broken))
        .await?;
    let names = config(ns.name()).names;
    let renewed = await_object(&secrets, SECRET, "is good again", |secret| {
        renewal_problem(&secret.into(), &names, Timestamp::now()).is_none()
    })
    .await?;
    assert_eq!(ca(&renewed)?, other.ca_crt.context("issued")?);

    secrets.delete(SECRET, &DeleteParams::default()).await?;
    let uid = renewed.uid();
    let again = await_object(&secrets, SECRET, "is back", |secret| secret.uid() != uid).await?;
    serves("the authority of the new Secret is served", ca(&again)?).await?;
    assert_eq!(resolver.health().last_error, None);

    // While idle it writes nothing.
    let version = again.resource_version();
    never("another write", Duration::from_secs(2), || async {
        Ok((secrets.get(SECRET).await?.resource_version() != version).then_some(()))
    })
    .await?;
    shutdown.cancel();
    running.await?;
    following.await?;
    Ok(())
}

/// A changed clock fires no timer. The next check of the Secret against the wall clock notices it.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_jump_is_noticed_without_a_write() -> anyhow::Result<()> {
    /// How many seconds this test's clock is ahead.
    static AHEAD: AtomicI64 = AtomicI64::new(0);
    fn clock() -> Timestamp {
        Timestamp::now() + SignedDuration::from_secs(AHEAD.load(Ordering::Relaxed))
    }
    let cp = ControlPlane::shared().await?;
    let ns = cp.namespace("authority").await?;
    let secrets = ns.api::<Secret>();
    let config = AuthorityConfig {
        // Checked every ten seconds, and due after 200.
        lifetimes: Lifetimes {
            leaf: SignedDuration::from_secs(300),
            ..Lifetimes::default()
        },
        clock,
        ..config(ns.name())
    };
    let names = config.names.clone();
    let (resolver, shutdown) = (Resolver::new(), CancellationToken::new());
    let running = tokio::spawn(Authority::new(cp.client(), config).run(resolver.clone(), shutdown.clone()));
    let first = await_object(&secrets, SECRET, "holds certificates", |_| true).await?;

    let (day, year) = (24 * 60 * 60, 365 * 24 * 60 * 60);
    for (ahead, reason) in [
        (day, CertificateProblem::LeafExpired),
        (11 * year, CertificateProblem::CaExpired),
        (0, CertificateProblem::CaNotYetValid),
    ] {
        let before = secrets.get(SECRET).await?;
        AHEAD.store(ahead, Ordering::Relaxed);
        let problem = |secret: &Secret| renewal_problem(&secret.into(), &names, clock());
        assert_eq!(problem(&before), Some(reason));
        await_object(&secrets, SECRET, "is good at the new time", |secret| {
            problem(secret).is_none()
        })
        .await?;
    }
    // A client that trusted the first certificate trusts the last.
    let last = secrets.get(SECRET).await?;
    assert!(CaBundle::from_pem(&ca(&first)?)?.is_within(&ca(&last)?));
    shutdown.cancel();
    running.await?;
    Ok(())
}

/// An upgrade that changes the names must not make old and new replicas fight.
#[tokio::test(flavor = "multi_thread")]
async fn replicas_with_different_names_end_up_with_one_certificate_for_all_of_them() -> anyhow::Result<()> {
    let cp = ControlPlane::shared().await?;
    let ns = cp.namespace("authority").await?;
    let old = authority(&cp.client(), ns.name());
    let mut other_names = config(ns.name());
    other_names.names = vec!["127.0.0.1".parse()?, "taskgate.example".parse()?];
    let new = Authority::new(cp.client(), other_names.clone());
    let first = old.ensure(Timestamp::now()).await?;
    assert_eq!(
        renewal_problem(&(&first).into(), &other_names.names, Timestamp::now()),
        Some(CertificateProblem::WrongNames)
    );
    let second = new.ensure(Timestamp::now()).await?;
    let third = old.ensure(Timestamp::now()).await?;
    assert_eq!(third.resource_version(), second.resource_version());
    assert_eq!(ca(&second)?, ca(&first)?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bundle_is_injected_and_nothing_else_is_owned() -> anyhow::Result<()> {
    let cp = ControlPlane::shared().await?;
    let api = Api::<ValidatingWebhookConfiguration>::all(cp.client());
    let name = "inject.taskgate.test";
    let (resolver, shutdown) = (Resolver::new(), CancellationToken::new());
    resolver.offer(new_certificate()?);
    let injector = injector(cp, name, &resolver);
    let injection = injector.injection();
    let running = tokio::spawn(injector.run(shutdown.clone()));
    let state = || async {
        let states = injection.states();
        let state = states
            .into_iter()
            .find(|(target, _)| *target == WebhookConfigurationKind::Validating);
        Ok::<_, anyhow::Error>(state.map(|(_, state)| state))
    };
    let reaches = |wanted: InjectionState| {
        eventually_that("the state", PATIENCE, state, move |state| {
            state.as_ref() == Some(&wanted)
        })
    };

    reaches(InjectionState::Absent).await?;
    apply(&api, name, "operator", &["a.taskgate.test", "b.taskgate.test"], None).await?;
    reaches(InjectionState::Injected).await?;
    let written = api.get(name).await?;
    assert_bundles(&written, resolver.bundle().borrow().as_ref());
    let owned = fields_of(&written, CA_FIELD_MANAGER);
    let only_the_bundle = json!({"f:webhooks": {
        "k:{\"name\":\"a.taskgate.test\"}": {".": {}, "f:clientConfig": {"f:caBundle": {}}, "f:name": {}},
        "k:{\"name\":\"b.taskgate.test\"}": {".": {}, "f:clientConfig": {"f:caBundle": {}}, "f:name": {}},
    }});
    assert_eq!(owned, only_the_bundle, "{owned:#}");

    // Applying the same configuration again changes nothing, and the injector writes nothing. Where it comes a second after our write, the API
    // server puts the operator's entry in `managedFields` behind ours, and so counts it as a write.
    apply(&api, name, "operator", &["a.taskgate.test", "b.taskgate.test"], None).await?;
    let applied = api.get(name).await?;
    assert_eq!(applied.metadata.generation, written.metadata.generation);
    never("another write", Duration::from_secs(1), || async {
        let found = api.get(name).await?;
        Ok((found.resource_version() != applied.resource_version()).then_some((applied.clone(), found)))
    })
    .await?;

    // A new authority: it is trusted beside the old one, and served after that.
    let (old, new) = (resolver.served().context("served")?, new_certificate()?);
    resolver.offer(new.clone());
    eventually("the new authority is served", PATIENCE, || async {
        // In this order: the served certificate was trusted before.
        let is_served = served(&resolver).as_deref() == Some(new.bundle().pem());
        let found = api.get(name).await?;
        let both_are_trusted = bundles(&found).all(|published| {
            published.is_some_and(|published| old.bundle().is_within(published) && new.bundle().is_within(published))
        });
        assert!(both_are_trusted || !is_served, "it is served before it is trusted");
        ensure!(is_served, "both are trusted: {both_are_trusted}");
        Ok(())
    })
    .await?;

    // Deleted and installed again.
    api.delete(name, &DeleteParams::default()).await?;
    reaches(InjectionState::Absent).await?;
    apply(&api, name, "operator", &["a.taskgate.test"], None).await?;
    reaches(InjectionState::Injected).await?;
    api.delete(name, &DeleteParams::default()).await?;

    shutdown.cancel();
    running.await?;
    Ok(())
}

/// Replicas that serve different authorities, as during a change of the certificate mode, write at the same moment.
#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_authority_stays_trusted_while_others_are_injected() -> anyhow::Result<()> {
    let cp = ControlPlane::shared().await?;
    let api = Api::<ValidatingWebhookConfiguration>::all(cp.client());
    let name = "concurrent.taskgate.test";
    let shutdown = CancellationToken::new();
    let mut running = JoinSet::new();
    let (mut authorities, mut injections) = (Vec::new(), Vec::new());
    for _ in 0..6 {
        let (resolver, certificate) = (Resolver::new(), new_certificate()?);
        authorities.push(certificate.bundle().clone());
        resolver.offer(certificate);
        let injector = injector(cp, name, &resolver);
        injections.push(injector.injection());
        running.spawn(injector.run(shutdown.clone()));
    }
    let all = |wanted: &'static str, is_so: fn(&InjectionState) -> bool| {
        let injections = &injections;
        eventually(wanted, PATIENCE, async move || {
            let states: Vec<_> = injections
                .iter()
                .map(|injection| injection.states()[1].1.clone())
                .collect();
            ensure!(states.iter().all(is_so), "{states:?}");
            Ok(())
        })
    };
    all("all of them read the configuration", |state| {
        *state == InjectionState::Absent
    })
    .await?;

    let params = WatchParams::default().fields(&format!("metadata.name={name}"));
    let start = api.list(&ListParams::default()).await?.metadata.resource_version;
    apply(&api, name, "operator", &["a.taskgate.test"], None).await?;
    all("all of them are trusted", |state| *state == InjectionState::Injected).await?;
    let last = api.get(name).await?;
    let trusted = |found: &ValidatingWebhookConfiguration| -> Vec<bool> {
        let published = bundles(found).flatten().next().unwrap_or_default();
        authorities
            .iter()
            .map(|authority| authority.is_within(published))
            .collect()
    };
    // Every version from its creation on.
    let mut versions = pin!(api.watch(&params, &start.context("a version")?).await?);
    let mut before = vec![false; 6];
    while let Some(event) = versions.next().await {
        let (WatchEvent::Added(version) | WatchEvent::Modified(version)) = event? else {
            continue;
        };
        let now = trusted(&version);
        let stays = before.iter().zip(&now).all(|(before, now)| *now || !before);
        assert!(stays, "{before:?}, then {now:?}");
        before = now;
        if version.resource_version() == last.resource_version() {
            break;
        }
    }
    assert_eq!(before, [true; 6]);
    api.delete(name, &DeleteParams::default()).await?;
    shutdown.cancel();
    running.join_all().await;
    Ok(())
}

/// The caveat of the injector: an update removes the webhook, a server-side apply is refused.
#[tokio::test(flavor = "multi_thread")]
async fn an_operator_removes_a_webhook_by_update() -> anyhow::Result<()> {
    let cp = ControlPlane::shared().await?;
    let api = Api::<ValidatingWebhookConfiguration>::all(cp.client());
    let name = "remove.taskgate.test";
    let (resolver, shutdown) = (Resolver::new(), CancellationToken::new());
    resolver.offer(new_certificate()?);
    let injector = injector(cp, name, &resolver);
    let running = tokio::spawn(injector.run(shutdown.clone()));
    let both = ["a.taskgate.test", "b.taskgate.test"];
    apply(&api, name, "operator", &both, None).await?;
    let mut found = await_object(&api, name, "carries the bundle", |found| {
        bundles(found).all(|bundle| bundle.is_some())
    })
    .await?;

    let refused = apply(&api, name, "operator", &both[..1], None).await;
    assert!(
        format!("{refused:?}").contains("webhooks[1].sideEffects"),
        "{refused:?}"
    );
    found.webhooks.get_or_insert_default().truncate(1);
    api.replace(name, &PostParams::default(), &found).await?;
    apply(&api, name, "operator", &both[..1], None).await?;
    let left = api.get(name).await?;
    assert_eq!(bundles(&left).count(), 1);
    assert_bundles(&left, resolver.bundle().borrow().as_ref());
    api.delete(name, &DeleteParams::default()).await?;
    shutdown.cancel();
    running.await?;
    Ok(())
}

/// A broken watch recovers, and does not change the state meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_of_the_api_server_everything_is_followed_again() -> anyhow::Result<()> {
    let cp = ControlPlane::start().await?;
    let ns = cp.namespace("restart").await?;
    let (resolver, shutdown) = (Resolver::new(), CancellationToken::new());
    let source = tokio::spawn(authority(&cp.client(), ns.name()).run(resolver.clone(), shutdown.clone()));
    let name = "restart.taskgate.test";
    let injector = injector(&cp, name, &resolver);
    let injection = injector.injection();
    let running = tokio::spawn(injector.run(shutdown.clone()));
    let configurations = Api::<ValidatingWebhookConfiguration>::all(cp.client());
    apply(&configurations, name, "operator", &["a.taskgate.test"], None).await?;
    let validating = || async { Ok(injection.states().map(|(_, state)| state)[1].clone()) };
    let injected = |state: &InjectionState| *state == InjectionState::Injected;
    eventually_that("the bundle is carried", PATIENCE, validating, injected).await?;
    let before = served(&resolver);

    cp.apiserver().restart().await?;
    assert_eq!(served(&resolver), before);
    assert_eq!(validating().await?, InjectionState::Injected);

    ns.api::<Secret>().delete(SECRET, &DeleteParams::default()).await?;
    let now_served = || async { Ok(served(&resolver)) };
    let new = |bundle: &Option<Vec<u8>>| bundle.is_some() && *bundle != before;
    let served = eventually_that("a new authority is served", PATIENCE, now_served, new).await?;
    let served = CaBundle::from_pem(&served.context("served")?)?;
    await_object(&configurations, name, "carries the new authority", |found| {
        bundles(found).all(|bundle| bundle.is_some_and(|bundle| served.is_within(bundle)))
    })
    .await?;
    assert_eq!(resolver.health().last_error, None);
    shutdown.cancel();
    source.await?;
    running.await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_of_another_manager_is_skipped() -> anyhow::Result<()> {
    let cp = ControlPlane::shared().await?;
    let api = Api::<ValidatingWebhookConfiguration>::all(cp.client());
    let name = "conflict.taskgate.test";
    let (ours, theirs) = (new_certificate()?, new_certificate()?);
    let (ours, theirs, certificate) = (ours.bundle().clone(), theirs.bundle().clone(), ours);
    let (resolver, shutdown) = (Resolver::new(), CancellationToken::new());
    resolver.offer(certificate);
    let injector = injector(cp, name, &resolver);
    let injection = injector.injection();
    let running = tokio::spawn(injector.run(shutdown.clone()));
    let validating = || async {
        let states = injection.states();
        Ok::<_, anyhow::Error>(
            states
                .into_iter()
                .find(|(target, _)| *target == WebhookConfigurationKind::Validating)
                .map(|(_, s)| s),
        )
    };

    apply(&api, name, "operator", &["a.taskgate.test"], Some(theirs.pem())).await?;
    let state = eventually_that("a conflict is reported", PATIENCE, validating, |state| {
        matches!(state, Some(InjectionState::Conflict(_)))
    })
    .await?;
    let text = state.context("a state")?.to_string();
    assert!(text.contains("\"operator\""), "{text}");
    assert_bundles(&api.get(name).await?, Some(&theirs));

    // A bundle of the other manager that contains ours is good.
    let both = [theirs.pem(), ours.pem()].concat();
    apply(&api, name, "operator", &["a.taskgate.test"], Some(&both)).await?;
    eventually_that("the bundle counts as injected", PATIENCE, validating, |state| {
        state.as_ref() == Some(&InjectionState::Injected)
    })
    .await?;
    assert_eq!(fields_of(&api.get(name).await?, CA_FIELD_MANAGER), Value::Null);
    api.delete(name, &DeleteParams::default()).await?;
    shutdown.cancel();
    running.await?;
    Ok(())
}

fn injector(cp: &ControlPlane, name: &str, resolver: &Arc<Resolver>) -> Injector {
    Injector::new(cp.client(), name.to_owned(), resolver.clone(), BundleManager::Taskgate)
}

/// The bundle of the served certificate.
fn served(resolver: &Arc<Resolver>) -> Option<Vec<u8>> {
    Some(resolver.served()?.bundle().pem().to_vec())
}

fn ca(secret: &Secret) -> anyhow::Result<Vec<u8>> {
    SecretData::from(secret).ca_crt.context("ca.crt")
}

fn new_certificate() -> anyhow::Result<ServingCertificate> {
    let data = issue_all(&["taskgate.test".parse()?], Lifetimes::default(), Timestamp::now())?;
    Ok(ServingCertificate::try_from(&data)?)
}

/// Server-side apply of a configuration that matches nothing, as a package manager does it.
async fn apply(
    api: &Api<ValidatingWebhookConfiguration>,
    name: &str,
    manager: &str,
    webhooks: &[&str],
    bundle: Option<&[u8]>,
) -> anyhow::Result<()> {
    let webhooks: Vec<_> = webhooks
        .iter()
        .map(|webhook| {
            let mut client = BTreeMap::from([("url", json!("https://127.0.0.1:1/"))]);
            client.extend(bundle.map(|bundle| ("caBundle", json!(ByteString(bundle.to_vec())))));
            json!({"name": webhook, "clientConfig": client, "rules": [{"apiGroups": ["none.taskgate.test"],
                "apiVersions": ["v1"], "resources": ["nothings"], "operations": ["CREATE"]}],
                "sideEffects": "None", "admissionReviewVersions": ["v1"]})
        })
        .collect();
    let configuration = json!({"apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration", "metadata": {"name": name}, "webhooks": webhooks});
    api.patch(name, &PatchParams::apply(manager), &Patch::Apply(configuration))
        .await?;
    Ok(())
}

fn bundles(found: &ValidatingWebhookConfiguration) -> impl Iterator<Item = Option<&[u8]>> {
    let webhooks = found.webhooks.iter().flatten();
    webhooks.map(|webhook| {
        webhook
            .client_config
            .ca_bundle
            .as_ref()
            .map(|bundle| bundle.0.as_slice())
    })
}

fn assert_bundles(found: &ValidatingWebhookConfiguration, wanted: Option<&CaBundle>) {
    assert!(bundles(found).count() > 0);
    assert!(bundles(found).all(|bundle| bundle == wanted.map(CaBundle::pem)));
}

/// What `manager` owns according to the API server.
fn fields_of(found: &ValidatingWebhookConfiguration, manager: &str) -> Value {
    let entries = found
        .managed_fields()
        .iter()
        .filter(|entry| entry.manager.as_deref() == Some(manager));
    entries
        .filter_map(|entry| entry.fields_v1.clone())
        .map(|fields| fields.0)
        .next()
        .unwrap_or_default()
}
