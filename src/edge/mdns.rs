//! Multicast DNS: how others see us with tools that they know, and how we see them. Hints only.
//!
//! One type around the mdns-sd crate, which runs a thread of its own. Its events cross into our loop through a bounded
//! channel and a small thread per browse; when either overflows, or the crate ends a subscription, we browse again,
//! which tells all that is known anew. What was asked for is kept as a wish and asked again when the crate is busy.
//!
//! The crate keeps all records that come while it browses: when that is more than the largest network has, somebody makes
//! them up, and the crate starts anew without them. While nothing is left to do, nothing here wakes, but for the look at
//! the records while we browse.

use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::thread;
use std::time::Duration;

use mdns_sd::{
    DaemonEvent, IfKind, IfPredicate, Metrics, Receiver, ResolvedService, ScopedIp, ServiceDaemon,
    ServiceEvent, ServiceInfo, UnregisterStatus,
};
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::core::{Advert, IpAddrScoped, Sighting};
use crate::edge::interfaces::InterfaceFilter;
use crate::edge::mdns_port;
use crate::wire::local::{Health, HealthState};
use crate::wire::txt::{SERVICE, Txt};

/// Events between the crate's threads and our loop; a network of a thousand nodes fits.
const EVENTS_QUEUED: usize = 1024;
/// From one look at what is wished and not done to the next.
const TEND_INTERVAL: Duration = Duration::from_millis(250);
/// After so many looks without our own advert coming back, multicast does not work here. As often it is tried again
/// whether the port can be had.
const TENDS_UNTIL_DEAF: u32 = 20;
/// Seconds between the crate's own looks at the addresses of this machine, some system calls each: when they changed just
/// now, as those that went are missed only then, and else, when we would have been told.
const LOOKS_OFTEN: u32 = 1;
const LOOKS_SELDOM: u32 = 60;
/// After a change the crate looks often for so many of our own looks.
const TENDS_AFTER_CHANGE: u32 = 10;
/// Records that the crate may keep while we browse: five each of a thousand nodes and more. What comes beyond that between
/// two looks, at the full rate of a wired link, is thirty megabytes.
const RECORDS_KEPT: i64 = 6144;
/// How long the end may take: two goodbyes are 120 ms apart.
const GOODBYE: Duration = Duration::from_millis(300);
const SECOND_GOODBYE: Duration = Duration::from_millis(150);

/// Our multicast DNS responder and browser.
pub struct Mdns {
    /// None while the system does not give what it needs.
    daemon: Option<ServiceDaemon>,
    /// Why the crate does without its port, or without that of one family: it takes it at its start or never.
    obstacle: Option<Health<'static>>,
    /// Looks since the last attempt to have the port.
    looks: u32,
    filter: Arc<InterfaceFilter>,
    probe: bool,
    /// What is wished, and the full name of what is registered.
    advert: Option<Advert>,
    registered: Option<(Advert, String)>,
    /// Answers when the first goodbye of the last one that was taken back is said.
    goodbye: Option<Receiver<UnregisterStatus>>,
    browse: bool,
    /// What we send does not come to this host, and so not to our own responder either.
    quiet: bool,
    /// The number of the browse that runs; an older one's end means nothing.
    browsing: Option<u64>,
    browses: u64,
    /// Answers with how many records the crate keeps.
    counted: Option<Receiver<Metrics>>,
    sender: mpsc::Sender<Heard>,
    receiver: mpsc::Receiver<Heard>,
    tend: Interval,
    count: Interval,
    /// So many looks until the crate looks seldom again; none if it does.
    alert: u32,
    hearing: Hearing,
}

/// What comes out of [`Mdns::poll`].
#[derive(Debug)]
pub enum MdnsEvent {
    /// A hint for the node.
    Sighting(Sighting),
    /// How multicast DNS is.
    Health(Health<'static>),
}

enum Heard {
    Sighting(Sighting),
    Failure(String),
    Health(Health<'static>),
    /// The browse of this number ended by itself.
    Ended(u64),
}

/// Whether our own advert has come back to us, which is how we know that multicast works.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hearing {
    /// So many looks were without it.
    Unknown(u32),
    Yes,
    No,
}

impl Mdns {
    /// Starts the responder. `probe`: look for name conflicts before an advert, which takes a second.
    /// What stands in the way is told as health, and tried again.
    pub fn start(filter: Arc<InterfaceFilter>, probe: bool) -> Self {
        let mut obstacle = mdns_port::obstacle();
        let (sender, receiver) = mpsc::channel(EVENTS_QUEUED);
        let daemon = responder(&filter, &sender);
        if let Err(error) = &daemon {
            obstacle = Some(not_started(error));
        }
        let daemon = daemon.ok();
        if let Some(obstacle) = obstacle.clone() {
            warn(&obstacle);
            let _ = sender.try_send(Heard::Health(obstacle));
        }
        let mut tend = interval(TEND_INTERVAL);
        tend.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut count = interval(TEND_INTERVAL);
        count.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            daemon,
            obstacle,
            looks: 0,
            filter,
            probe,
            advert: None,
            registered: None,
            goodbye: None,
            browse: false,
            quiet: false,
            browsing: None,
            browses: 0,
            counted: None,
            sender,
            receiver,
            tend,
            count,
            alert: 0,
            hearing: Hearing::Unknown(0),
        }
    }

    /// Advertises this in place of what was advertised before.
    pub fn announce(&mut self, advert: Advert) {
        self.advert = Some(advert);
        self.attend();
    }

    /// Takes the advert back.
    pub fn withdraw(&mut self) {
        self.advert = None;
        self.attend();
    }

    /// Browses, from the fast end of the schedule on.
    pub fn browse(&mut self) {
        self.set_quiet(false);
        self.begin_browse();
    }

    /// Browses so that nobody on this host is asked: our own responder would answer, with as many packets. But not while
    /// we wait for our own advert to come back.
    pub fn ask(&mut self) {
        self.set_quiet(self.hearing == Hearing::Yes);
        self.begin_browse();
    }

    fn begin_browse(&mut self) {
        self.browse = true;
        self.browsing = None;
        self.attend();
    }

    /// Browses no more.
    pub fn stop_browse(&mut self) {
        self.browse = false;
        self.attend();
    }

    fn set_quiet(&mut self, quiet: bool) {
        let Some(daemon) = self.daemon.as_ref().filter(|_| self.quiet != quiet) else { return };
        let set = daemon.set_multicast_loop_v4(!quiet).and_then(|()| daemon.set_multicast_loop_v6(!quiet));
        match set {
            Ok(()) => self.quiet = quiet,
            Err(error) => tracing::debug!(reason = %error, "multicast DNS stays as it is on this host"),
        }
    }

    /// The addresses of this machine changed: the crate would only see that at its next look. A selection of nothing
    /// makes it look now.
    pub fn look(&mut self) {
        let Some(daemon) = &self.daemon else { return };
        let look = daemon.enable_interface(Vec::<IfKind>::new());
        if let Err(error) = look.and_then(|()| daemon.set_ip_check_interval(LOOKS_OFTEN)) {
            tracing::debug!(reason = %error, "multicast DNS looks at the addresses a little later");
        }
        self.alert = TENDS_AFTER_CHANGE;
    }

    /// The next hint or state.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<MdnsEvent> {
        while (self.browsing.is_some() || self.counted.is_some()) && self.count.poll_tick(cx).is_ready() {
            self.look_at_records();
        }
        while self.is_unsettled() && self.tend.poll_tick(cx).is_ready() {
            let health = self.look_for_port();
            self.attend();
            self.calm_down();
            if let Some(health) = health.or_else(|| self.listen_for_ourselves()) {
                return Poll::Ready(MdnsEvent::Health(health));
            }
        }
        let Some(heard) = ready!(self.receiver.poll_recv(cx)) else { return Poll::Pending };
        match heard {
            Heard::Ended(number) => {
                if self.browsing == Some(number) {
                    self.browsing = None;
                }
                // Browses again with the next look.
                self.poll(cx)
            }
            Heard::Health(health) => Poll::Ready(MdnsEvent::Health(health)),
            Heard::Failure(reason) => Poll::Ready(MdnsEvent::Health(failing(&reason))),
            Heard::Sighting(sighting)
                if self.is_ours(&sighting) && self.hearing != Hearing::Yes && self.obstacle.is_none() =>
            {
                self.hearing = Hearing::Yes;
                cx.waker().wake_by_ref();
                Poll::Ready(MdnsEvent::Health(working()))
            }
            Heard::Sighting(sighting) => Poll::Ready(MdnsEvent::Sighting(sighting)),
        }
    }

    /// Takes everything back and ends, in a bounded time: two goodbyes, since `shutdown` alone says one.
    pub fn shutdown(mut self) {
        self.withdraw();
        if let Some(said) = self.goodbye
            && said.recv_timeout(GOODBYE).is_ok()
        {
            thread::sleep(SECOND_GOODBYE);
        }
        if let Some(Ok(done)) = self.daemon.map(|daemon| daemon.shutdown()) {
            let _ = done.recv_timeout(GOODBYE);
        }
    }

    /// Whether there is anything to look at now and then.
    fn is_unsettled(&self) -> bool {
        self.alert > 0
            || self.obstacle.is_some()
            || self.browse != self.browsing.is_some()
            || self.quiet && !self.browse
            || !self.is_registered()
            || self.is_listening_for_ourselves()
    }

    fn is_registered(&self) -> bool {
        self.registered.as_ref().map(|(advert, _)| advert) == self.advert.as_ref()
    }

    fn calm_down(&mut self) {
        // With the last one the crate has to take it; what it refuses is tried again.
        let calmed = |daemon: &ServiceDaemon| daemon.set_ip_check_interval(LOOKS_SELDOM).is_ok();
        if self.alert > 1 || self.alert == 1 && self.daemon.as_ref().is_none_or(calmed) {
            self.alert -= 1;
        }
    }

    /// Does what is wished and not done yet. What the crate refuses now is tried again at the next look.
    fn attend(&mut self) {
        let outcome = self.attend_advert().and_then(|()| self.attend_browse());
        match outcome {
            Ok(()) | Err(mdns_sd::Error::Again) => {}
            Err(error) => tracing::debug!(reason = %error, "multicast DNS refused"),
        }
        // Behind the command that ends the browse.
        if !self.browse {
            self.set_quiet(false);
        }
    }

    fn attend_advert(&mut self) -> mdns_sd::Result<()> {
        let Some(daemon) = &self.daemon else { return Err(mdns_sd::Error::Again) };
        if self.is_registered() {
            return Ok(());
        }
        let info = self.advert.as_ref().map(|advert| self.service_info(advert)).transpose()?;
        let fullname = info.as_ref().map(|info| info.get_fullname().to_owned());
        if let Some((_, old)) = &self.registered
            && Some(old) != fullname.as_ref()
        {
            self.goodbye = Some(daemon.unregister(old)?);
            self.registered = None;
        }
        let (Some(advert), Some(info), Some(fullname)) = (self.advert.clone(), info, fullname) else {
            return Ok(());
        };
        daemon.register(info)?;
        self.registered = Some((advert, fullname));
        self.hearing = Hearing::Unknown(0);
        Ok(())
    }

    fn service_info(&self, advert: &Advert) -> mdns_sd::Result<ServiceInfo> {
        let host = format!("{}.local.", advert.host);
        let properties = advert.txt.properties();
        let mut info = ServiceInfo::new(SERVICE, &advert.label, &host, "", advert.port, &properties[..])?
            .enable_addr_auto();
        info.set_requires_probe(self.probe);
        let used = Arc::clone(&self.filter);
        info.set_interfaces(vec![IfKind::Predicate(IfPredicate::new(move |interface| used.uses(interface)))]);
        Ok(info)
    }

    fn attend_browse(&mut self) -> mdns_sd::Result<()> {
        let Some(daemon) = &self.daemon else { return Err(mdns_sd::Error::Again) };
        match (self.browse, self.browsing) {
            (true, None) => {
                let events = daemon.browse(SERVICE)?;
                self.browses += 1;
                self.browsing = Some(self.browses);
                let (number, to_loop) = (self.browses, self.sender.clone());
                spawn("mdns-browse", move || {
                    forward_sightings(&events, &to_loop);
                    // Waits for room; without a loop nobody wants to know.
                    let _ = to_loop.blocking_send(Heard::Ended(number));
                });
                Ok(())
            }
            (false, Some(_)) => {
                daemon.stop_browse(SERVICE)?;
                self.browsing = None;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// While the port cannot be had, tries now and then, and starts anew when it can.
    fn look_for_port(&mut self) -> Option<Health<'static>> {
        self.obstacle.as_ref()?;
        self.looks += 1;
        if self.looks < TENDS_UNTIL_DEAF {
            return None;
        }
        self.looks = 0;
        let obstacle = mdns_port::obstacle();
        if obstacle == self.obstacle {
            return None;
        }
        if let Err(error) = self.start_anew() {
            let obstacle = Some(not_started(&error));
            if self.obstacle == obstacle {
                return None;
            }
            self.obstacle = obstacle;
            return self.obstacle.clone().inspect(warn);
        }
        self.obstacle = obstacle;
        self.obstacle.clone().inspect(warn)
    }

    /// Starts the crate anew; what is wished is asked again.
    fn start_anew(&mut self) -> mdns_sd::Result<()> {
        let daemon = responder(&self.filter, &self.sender)?;
        drop(self.daemon.replace(daemon).map(|before| before.shutdown()));
        self.registered = None;
        self.quiet = false;
        self.browsing = None;
        self.counted = None;
        self.hearing = Hearing::Unknown(0);
        Ok(())
    }

    /// Bounds what the crate keeps. Browsing ends then until it is wished again: who made up so much goes on.
    fn look_at_records(&mut self) {
        if let Some(counted) = self.counted.take() {
            // An answer that has not come by now is asked for again.
            if counted.try_recv().is_ok_and(|kept| records(&kept) > RECORDS_KEPT) {
                tracing::warn!("somebody floods multicast DNS: it starts anew, and browses later");
                self.browse = false;
                if let Err(error) = self.start_anew() {
                    tracing::debug!(reason = %error, "multicast DNS keeps what it has");
                }
                return;
            }
        }
        if self.browsing.is_some() {
            self.counted = self.daemon.as_ref().and_then(|daemon| daemon.get_metrics().ok());
        }
    }

    fn is_ours(&self, sighting: &Sighting) -> bool {
        let Sighting::Seen { label, .. } = sighting else { return false };
        self.registered.as_ref().is_some_and(|(advert, _)| advert.label == *label)
    }

    /// Multicast that does not even come back to us reaches nobody: the crate does not say when it cannot have its
    /// port, so this is how we know.
    fn listen_for_ourselves(&mut self) -> Option<Health<'static>> {
        let Hearing::Unknown(looks) = self.hearing else { return None };
        if !self.is_listening_for_ourselves() {
            return None;
        }
        let deaf = looks + 1 >= TENDS_UNTIL_DEAF;
        self.hearing = if deaf { Hearing::No } else { Hearing::Unknown(looks + 1) };
        deaf.then(|| failing("our own announcement does not come back"))
    }

    fn is_listening_for_ourselves(&self) -> bool {
        matches!(self.hearing, Hearing::Unknown(_))
            && self.obstacle.is_none()
            && self.registered.is_some()
            && self.browsing.is_some()
    }
}

/// The crate's counters of records that it keeps, by their kinds.
const CACHED: [&str; 6] =
    ["cached-ptr", "cached-srv", "cached-addr", "cached-txt", "cached-nsec", "cached-subtype"];

/// How many records the crate keeps.
fn records(metrics: &Metrics) -> i64 {
    CACHED.iter().filter_map(|kind| metrics.get(*kind)).sum()
}

/// The crate's responder, on the interfaces that we use.
fn responder(filter: &Arc<InterfaceFilter>, to_loop: &mpsc::Sender<Heard>) -> mdns_sd::Result<ServiceDaemon> {
    let daemon = ServiceDaemon::new()?;
    let used = Arc::clone(filter);
    let unused = IfKind::Predicate(IfPredicate::new(move |interface| !used.uses(interface)));
    daemon.disable_interface(unused)?;
    daemon.set_ip_check_interval(LOOKS_SELDOM)?;
    let (failures, to_loop) = (daemon.monitor()?, to_loop.clone());
    spawn("mdns-failures", move || forward_failures(&failures, &to_loop));
    Ok(daemon)
}

fn working() -> Health<'static> {
    Health {
        check: "mdns".into(),
        state: HealthState::Ok,
        why: "our own announcement comes back".into(),
        fix: "".into(),
    }
}

/// How it is when the system gives no thread or descriptor.
fn not_started(error: &mdns_sd::Error) -> Health<'static> {
    Health {
        check: "mdns".into(),
        state: HealthState::Warn,
        why: format!("multicast DNS cannot be started: {error}").into(),
        fix: "raise the limits of this process for threads and open files; it is tried again every 5 s, and hellos, \
              remembered addresses and --peer find peers meanwhile"
            .into(),
    }
}

/// How it is when there is none at all.
fn failing(reason: &str) -> Health<'static> {
    let health = Health {
        check: "mdns".into(),
        state: HealthState::Warn,
        why: format!("multicast DNS does not work: {reason}").into(),
        fix:
            "let UDP 5353 through the firewall; hellos, remembered addresses and --peer find peers meanwhile"
                .into(),
    };
    warn(&health);
    health
}

fn warn(health: &Health<'_>) {
    tracing::warn!("{}", health.why);
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) {
    if let Err(error) = thread::Builder::new().name(name.to_owned()).spawn(run) {
        tracing::warn!(reason = %error, "no thread for multicast DNS");
    }
}

/// Until the crate ends the subscription, or our loop does not keep up: both mean to browse again.
fn forward_sightings(events: &Receiver<ServiceEvent>, to_loop: &mpsc::Sender<Heard>) {
    for event in events.iter() {
        let sighting = match event {
            ServiceEvent::ServiceResolved(service) => seen(*service),
            ServiceEvent::ServiceRemoved(_, fullname) => {
                label(&fullname).map(|label| Sighting::Lost { label })
            }
            // Progress of the search, and kinds that later versions may add.
            ServiceEvent::SearchStarted(_)
            | ServiceEvent::ServiceFound(..)
            | ServiceEvent::SearchStopped(_)
            | _ => None,
        };
        if let Some(sighting) = sighting
            && to_loop.try_send(Heard::Sighting(sighting)).is_err()
        {
            return;
        }
    }
}

fn forward_failures(events: &Receiver<DaemonEvent>, to_loop: &mpsc::Sender<Heard>) {
    for event in events.iter() {
        if let DaemonEvent::Error(error) = event
            && matches!(
                to_loop.try_send(Heard::Failure(error.to_string())),
                Err(mpsc::error::TrySendError::Closed(_))
            )
        {
            return;
        }
    }
}

fn seen(service: ResolvedService) -> Option<Sighting> {
    let label = label(service.get_fullname())?;
    let txt = match Txt::parse(|key| service.get_property_val_str(key)) {
        Ok(txt) => txt,
        Err(reason) => {
            tracing::debug!(label, %reason, "an advert cannot be read");
            return None;
        }
    };
    let mut addrs: Vec<IpAddrScoped> =
        service.addresses.into_iter().filter_map(|addr| scoped(&addr)).collect();
    // A hash set has no order of its own; equal adverts shall be equal inputs.
    addrs.sort_unstable();
    Some(Sighting::Seen { label, port: service.port, txt, addrs })
}

fn scoped(addr: &ScopedIp) -> Option<IpAddrScoped> {
    match addr {
        ScopedIp::V4(v4) => Some(IpAddrScoped { addr: (*v4.addr()).into(), scope: 0 }),
        ScopedIp::V6(v6) => {
            let scope = if v6.addr().is_unicast_link_local() { v6.scope_id().index } else { 0 };
            Some(IpAddrScoped { addr: (*v6.addr()).into(), scope })
        }
        _ => None,
    }
}

/// The instance label of a full name. The crate hands labels over as they came, without escapes.
fn label(fullname: &str) -> Option<String> {
    let at = fullname.len().checked_sub(SERVICE.len() + 1)?;
    let (label, rest) = fullname.split_at_checked(at)?;
    (rest.strip_prefix('.')?.eq_ignore_ascii_case(SERVICE) && !label.is_empty()).then(|| label.to_owned())
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;
    use crate::id::NodeId;

    #[test]
    fn the_label_is_what_stands_before_the_service() {
        assert_eq!(label("pi (k7q3m2fd)._atonce._udp.local.").as_deref(), Some("pi (k7q3m2fd)"));
        assert_eq!(label("pi.attic._ATONCE._udp.local.").as_deref(), Some("pi.attic"));
        assert_eq!(label("_atonce._udp.local."), None);
        assert_eq!(label("._atonce._udp.local."), None);
        assert_eq!(label("pi._other._udp.local."), None);
        assert_eq!(label("é"), None);
    }

    fn advert(number: u8, name: &str) -> Advert {
        let id = NodeId([number; 32]);
        Advert {
            label: format!("{name} ({})", id.short()),
            host: id.short(),
            port: 28000 + u16::from(number),
            txt: Txt::Open(id),
        }
    }

    async fn sighting(mdns: &mut Mdns, wanted: impl Fn(&Sighting) -> bool) -> Sighting {
        loop {
            if let MdnsEvent::Sighting(sighting) = poll_fn(|cx| mdns.poll(cx)).await
                && wanted(&sighting)
            {
                return sighting;
            }
        }
    }

    #[tokio::test]
    async fn two_daemons_of_one_host_see_each_other_come_and_go() {
        let filter = Arc::new(InterfaceFilter::default());
        let mut left = Mdns::start(Arc::clone(&filter), false);
        let mut right = Mdns::start(filter, false);
        left.browse();
        right.announce(advert(201, "küche.test"));
        let found = sighting(&mut left, |seen| matches!(seen, Sighting::Seen { port: 28201, .. })).await;
        let Sighting::Seen { label, txt, addrs, .. } = found else { panic!() };
        assert_eq!(label, advert(201, "küche.test").label);
        assert_eq!(txt, Txt::Open(NodeId([201; 32])));
        assert!(!addrs.is_empty());

        right.announce(advert(202, "other"));
        sighting(&mut left, |seen| matches!(seen, Sighting::Seen { port: 28202, .. })).await;
        left.browse();
        sighting(&mut left, |seen| matches!(seen, Sighting::Seen { port: 28202, .. })).await;
        let gone = advert(202, "other").label;
        right.shutdown();
        sighting(&mut left, |seen| *seen == Sighting::Lost { label: gone.clone() }).await;
        left.shutdown();
    }

    #[tokio::test]
    async fn our_own_advert_that_comes_back_shows_that_multicast_works_and_nothing_is_left_to_look_at() {
        let mut mdns = Mdns::start(Arc::new(InterfaceFilter::default()), false);
        mdns.browse();
        mdns.announce(advert(203, "self"));
        loop {
            if let MdnsEvent::Health(health) = poll_fn(|cx| mdns.poll(cx)).await {
                assert_eq!(health.state, HealthState::Ok, "{}", health.why);
                break;
            }
        }
        assert!(!mdns.is_unsettled());
        mdns.look();
        assert!(mdns.is_unsettled());
        poll_fn(|cx| {
            let _ = mdns.poll(cx);
            if mdns.is_unsettled() { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
        mdns.shutdown();
    }
}
