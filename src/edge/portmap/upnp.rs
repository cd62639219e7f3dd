//! A port by UPnP, from the router only: any device may answer a search.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;

use igd_next::aio::Gateway as Device;
use igd_next::aio::tokio::{Tokio, search_gateway};
use igd_next::{AddAnyPortError, AddPortError, PortMappingProtocol, SearchOptions};

use super::gateway::Gateway;
use super::router::{ASK, LEASE, answer};

/// What the router shows its owner.
const DESCRIPTION: &str = "atonce";
/// Until it is deleted.
const PERMANENT: u32 = 0;

/// What the router gave us, or is to.
#[derive(Debug)]
pub(super) struct Upnp {
    device: Device<Tokio>,
    own: SocketAddr,
    /// Our port there: the own number, until another one is given.
    port: NonZeroU16,
}

impl Upnp {
    /// Searches once, by a few datagrams to a group on the network of the router.
    pub(super) async fn search(at: Gateway, port: NonZeroU16) -> Result<Self, String> {
        let mut options = SearchOptions::default();
        options.bind_addr = (at.own, 0).into();
        options.timeout = Some(ASK);
        options.single_search_timeout = Some(ASK);
        let device = answer(search_gateway(options)).await?;
        if device.addr.ip() != IpAddr::V4(at.router) {
            return Err(format!("{} answers for the router", device.addr.ip()));
        }
        Ok(Self { device, own: (at.own, port.get()).into(), port })
    }

    /// Asks for the port, anew or once more, and where the internet finds it.
    pub(super) async fn ask(&mut self) -> Result<SocketAddr, String> {
        let ip = answer(self.device.get_external_ip()).await?;
        let lease = u32::try_from(LEASE.as_secs()).unwrap_or(PERMANENT);
        let taken = match answer_kept(self.add(lease)).await? {
            Err(AddPortError::OnlyPermanentLeasesSupported) => answer_kept(self.add(PERMANENT)).await?,
            outcome => outcome,
        };
        match taken {
            Ok(()) => {}
            Err(AddPortError::PortInUse) => self.ask_for_any(lease).await?,
            Err(reason) => return Err(reason.to_string()),
        }
        Ok(SocketAddr::new(ip, self.port.get()))
    }

    /// Gives it back.
    pub(super) async fn delete(self) -> Result<(), String> {
        answer(self.device.remove_port(PortMappingProtocol::UDP, self.port.get())).await
    }

    async fn add(&self, lease: u32) -> Result<(), AddPortError> {
        let port = self.port.get();
        self.device.add_port(PortMappingProtocol::UDP, port, self.own, lease, DESCRIPTION).await
    }

    /// Another device has the port that we would like.
    async fn ask_for_any(&mut self, lease: u32) -> Result<(), String> {
        let any = |lease| self.device.add_any_port(PortMappingProtocol::UDP, self.own, lease, DESCRIPTION);
        let given = match answer_kept(any(lease)).await? {
            Err(AddAnyPortError::OnlyPermanentLeasesSupported) => answer(any(PERMANENT)).await?,
            outcome => outcome.map_err(|reason| reason.to_string())?,
        };
        self.port = NonZeroU16::new(given).ok_or("the router gives port 0")?;
        Ok(())
    }
}

/// The same as [`answer`], where the reason decides.
async fn answer_kept<T, E>(question: impl Future<Output = Result<T, E>>) -> Result<Result<T, E>, String> {
    answer(async { Ok::<_, String>(question.await) }).await
}
