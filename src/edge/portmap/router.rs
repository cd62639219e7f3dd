//! What a router is asked for a port: by PCP, then by NAT-PMP, then by UPnP.
//!
//! Whatever it answers is hostile: each question ends after three seconds, and an address that is none of the internet
//! (a router behind a carrier's or another one) counts as none.

use std::fmt::Display;
use std::future::Future;
#[cfg(not(feature = "upnp"))]
use std::future::{Ready, ready};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::time::Duration;

use crab_nat::{InternetProtocol, PortMappingOptions, PortMappingType, TimeoutConfig, natpmp, pcp};
use tokio::time::timeout;

use super::gateway::Gateway;
#[cfg(feature = "upnp")]
use super::upnp::Upnp;

/// So long each question may take.
pub(super) const ASK: Duration = Duration::from_secs(3);
/// For so long a port is asked for.
pub(super) const LEASE: Duration = Duration::from_secs(2 * 60 * 60);
/// A router that gives shorter leases than twice this is not asked more often.
const RENEW_MIN: Duration = Duration::from_secs(60);
/// Within one question, from the first datagram to the second, and twice as late each time.
const PATIENCE: TimeoutConfig =
    TimeoutConfig { initial_timeout: Duration::from_millis(250), max_retries: 3, max_retry_timeout: None };

/// A port of the router that leads to us.
#[derive(Debug)]
pub(super) struct Mapping {
    /// Where the internet finds us.
    pub(super) addr: SocketAddr,
    /// How it was asked for.
    pub(super) protocol: &'static str,
    /// When it is to be asked for again.
    pub(super) renew_after: Duration,
    lease: Lease,
}

#[derive(Debug)]
enum Lease {
    /// By PCP or NAT-PMP.
    Asked(crab_nat::PortMapping),
    #[cfg(feature = "upnp")]
    Upnp(Box<Upnp>),
}

impl Mapping {
    /// Asks for one anew; `search`: also for a router that has to be searched for.
    pub(super) async fn new(at: Gateway, port: NonZeroU16, search: bool) -> Result<Self, String> {
        let (router, own) = (at.router.into(), IpAddr::V4(at.own));
        let options = PortMappingOptions {
            external_port: Some(port),
            lifetime_seconds: u32::try_from(LEASE.as_secs()).ok(),
            timeout_config: Some(PATIENCE),
        };
        let request = pcp::BaseMapRequest::new(router, own, InternetProtocol::Udp, port);
        match answer(pcp::port_mapping(request, None, None, options)).await {
            Ok(lease) => return Self::asked(lease).await?.checked().await,
            Err(reason) => tracing::debug!(router = %at.router, reason, "no port by PCP"),
        }
        match answer(natpmp::port_mapping(router, InternetProtocol::Udp, port, options)).await {
            Ok(lease) => return Self::asked(lease).await?.checked().await,
            Err(reason) => tracing::debug!(router = %at.router, reason, "no port by NAT-PMP"),
        }
        Self::searched(at, port, search).await?.checked().await
    }

    /// Asks for the same once more.
    pub(super) async fn renewed(self) -> Result<Self, String> {
        let renewed = match self.lease {
            Lease::Asked(mut lease) => {
                answer(lease.renew()).await?;
                Self::asked(lease).await?
            }
            #[cfg(feature = "upnp")]
            Lease::Upnp(lease) => Self::upnp(*lease).await?,
        };
        renewed.checked().await
    }

    /// Gives it back.
    pub(super) async fn delete(self) {
        let outcome = match self.lease {
            Lease::Asked(lease) => {
                let dropped = async { lease.try_drop().await.map_err(|(reason, _)| reason) };
                answer(dropped).await
            }
            #[cfg(feature = "upnp")]
            Lease::Upnp(lease) => lease.delete().await,
        };
        if let Err(reason) = outcome {
            tracing::debug!(addr = %self.addr, reason, "the router keeps the port for now");
        }
    }

    async fn asked(lease: crab_nat::PortMapping) -> Result<Self, String> {
        let (ip, protocol) = match lease.mapping_type() {
            PortMappingType::Pcp { external_ip, .. } => (external_ip, "PCP"),
            PortMappingType::NatPmp => {
                let ip = answer(natpmp::external_address(lease.gateway(), Some(PATIENCE))).await?;
                (ip.into(), "NAT-PMP")
            }
        };
        let addr = SocketAddr::new(ip.to_canonical(), lease.external_port().get());
        let renew_after = (Duration::from_secs(lease.lifetime().into()) / 2).clamp(RENEW_MIN, LEASE / 2);
        Ok(Self { addr, protocol, renew_after, lease: Lease::Asked(lease) })
    }

    #[cfg(feature = "upnp")]
    async fn searched(at: Gateway, port: NonZeroU16, search: bool) -> Result<Self, String> {
        if !search {
            return Err("the router gives no port".to_owned());
        }
        Self::upnp(Upnp::search(at, port).await?).await
    }

    #[cfg(not(feature = "upnp"))]
    fn searched(_: Gateway, _: NonZeroU16, _: bool) -> Ready<Result<Self, String>> {
        ready(Err("the router gives no port by PCP or NAT-PMP".to_owned()))
    }

    #[cfg(feature = "upnp")]
    async fn upnp(mut lease: Upnp) -> Result<Self, String> {
        let addr = lease.ask().await?;
        Ok(Self { addr, protocol: "UPnP", renew_after: LEASE / 2, lease: Lease::Upnp(Box::new(lease)) })
    }

    async fn checked(self) -> Result<Self, String> {
        let ip = self.addr.ip();
        if is_of_the_internet(ip) {
            return Ok(self);
        }
        self.delete().await;
        Err(format!("the router has no address of the internet itself, but {ip}"))
    }
}

/// The answer to one question.
pub(super) async fn answer<T, E: Display>(question: impl Future<Output = Result<T, E>>) -> Result<T, String> {
    match timeout(ASK, question).await {
        Ok(answer) => answer.map_err(|reason| reason.to_string()),
        Err(_) => Err("no answer".to_owned()),
    }
}

/// Whether others of the internet may send there.
fn is_of_the_internet(ip: IpAddr) -> bool {
    let IpAddr::V4(ip) = ip.to_canonical() else { return false };
    let [first, second, ..] = ip.octets();
    let of_a_carrier = first == 100 && second & 0xc0 == 64 || ip.octets().starts_with(&[192, 0, 0]);
    let to_none = first == 0 || first >= 224 || ip.is_loopback();
    !of_a_carrier && !to_none && !ip.is_private() && !ip.is_link_local()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_to_an_address_that_is_none_of_the_internet_is_none() {
        let none = "0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 100.127.255.255 127.0.0.1 169.254.7.7 172.16.0.1 \
                    172.31.0.1 192.0.0.4 192.168.1.1 224.0.0.1 240.0.0.1 255.255.255.255 ::ffff:10.0.0.1 \
                    :: ::1 fe80::1 fd00::1 2001:db8::1";
        for ip in none.split_ascii_whitespace() {
            assert!(!is_of_the_internet(ip.parse().unwrap()), "{ip}");
        }
        let some = "9.9.9.9 100.63.255.255 100.128.0.1 172.15.0.1 172.32.0.1 192.0.1.1 192.167.1.1 \
                    203.0.113.7 223.255.255.254 ::ffff:203.0.113.7";
        for ip in some.split_ascii_whitespace() {
            assert!(is_of_the_internet(ip.parse().unwrap()), "{ip}");
        }
    }
}
