//! One control plane for all tests of a suite: they take 5 s to start, and have namespaces.

use tokio::sync::OnceCell;

use crate::builder::Builder;
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
/// A suite that needs more than a control plane (taskgate running in it, say) puts it in
/// a type of its own, in a `static` [`OnceCell`]: neither [`ControlPlane`] nor
/// [`Process`](crate::Process) is bound to the runtime that started it. A
/// [`kube::Client`] is: let every test make its own.
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

impl ControlPlane {
    /// The plain control plane that all tests of this process share.
    ///
    /// # Errors
    /// As [`ControlPlane::start`].
    pub async fn shared() -> anyhow::Result<&'static Self> {
        PLAIN.get().await
    }
}
