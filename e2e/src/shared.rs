//! One control plane for all tests of a suite: they take 5 s to start, and have namespaces.

use tokio::sync::OnceCell;

use crate::builder::Builder;
use crate::fixture::Fixture;
use crate::gate::{Gate, GateBuilder};
use crate::plane::ControlPlane;

static PLAIN: Shared = Shared::new(Builder::default);

/// A control plane that is started by the first test that asks for it.
///
/// Made for a `static`. Nothing drops a static; when the test process ends, in whatever
/// way, the supervisor notices and cleans up.
///
/// ```no_run
/// use taskgate_e2e::{ControlPlane, Shared};
///
/// static PLANE: Shared = Shared::new(|| ControlPlane::builder().crds("…"));
///
/// # async fn test() -> anyhow::Result<()> {
/// let cp = PLANE.get().await?;
/// # Ok(())
/// # }
/// ```
///
/// With taskgate in it there is [`SharedGate`]. A suite that needs more puts it in a `static` [`OnceCell`]: neither
/// [`ControlPlane`] nor [`Process`](crate::Process) is bound to the runtime that started it. A [`kube::Client`] is: let every
/// test make its own.
#[derive(Debug)]
pub struct Shared {
    recipe: fn() -> Builder,
    plane: OnceCell<ControlPlane>,
}

impl Shared {
    /// A control plane that will be started as `recipe` says.
    pub const fn new(recipe: fn() -> Builder) -> Self {
        Self {
            recipe,
            plane: OnceCell::const_new(),
        }
    }

    /// The control plane; started on the first call.
    ///
    /// # Errors
    /// If it does not start. The next call tries again.
    pub async fn get(&self) -> anyhow::Result<&ControlPlane> {
        self.plane.get_or_try_init(|| (self.recipe)().start()).await
    }
}

/// A control plane with one taskgate, both started by the first test that asks for them. Made for a `static`.
#[derive(Debug)]
pub struct SharedGate {
    plane: Shared,
    gate: OnceCell<Gate>,
}

impl SharedGate {
    /// A control plane that will be started as `recipe` says.
    pub const fn new(recipe: fn() -> Builder) -> Self {
        Self {
            plane: Shared::new(recipe),
            gate: OnceCell::const_new(),
        }
    }

    /// The control plane, for what must be there before taskgate.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn plane(&self) -> anyhow::Result<&ControlPlane> {
        self.plane.get().await
    }

    /// The control plane and its taskgate, which the first call starts as `gate` says.
    ///
    /// # Errors
    /// If one of them does not start. The next call tries again.
    pub async fn get(&self, gate: GateBuilder) -> anyhow::Result<(&ControlPlane, &Gate)> {
        let cp = self.plane().await?;
        let gate = self.gate.get_or_try_init(|| gate.start(cp)).await?;
        Ok((cp, gate))
    }

    /// A new namespace with these labels, beside [`SharedGate::get`].
    ///
    /// # Errors
    /// As [`SharedGate::get`], or if the namespace cannot be created.
    pub async fn fixture(&self, gate: GateBuilder, hint: &str, labels: &[(&str, &str)]) -> anyhow::Result<Fixture<'_>> {
        let (cp, gate) = self.get(gate).await?;
        let ns = cp.namespace_with_labels(hint, labels).await?;
        Ok(Fixture { cp, gate, ns })
    }
}

impl ControlPlane {
    /// The plain control plane that all tests of this process share.
    ///
    /// # Errors
    /// As [`ControlPlane::start`].
    pub async fn shared() -> anyhow::Result<&'static Self> {
        PLAIN.get().await
    }
}
