//! Wakes the loop at the node's next deadline, by the clock that counts suspended time.
//!
//! The runtime's own timers stand still while the machine sleeps; this one is due when the machine wakes.

use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::unix::pipe::Receiver;

use crate::time::Instant;

/// One alarm.
#[derive(Debug)]
pub(super) struct Alarm {
    /// A timerfd(2): read like a pipe, it gives eight bytes each time that it went off.
    timer: Receiver,
    set: Option<Instant>,
}

impl Alarm {
    /// One that is not set.
    ///
    /// # Errors
    ///
    /// The system has no such timers.
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Boottime, flags)?;
        Ok(Self { timer: Receiver::from_owned_fd_unchecked(timer)?, set: None })
    }

    /// Ready once `deadline` has come; never without one.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, deadline: Option<Instant>) -> Poll<()> {
        if self.set != deadline
            && let Err(error) = self.set(deadline)
        {
            // Better too busy than deaf to time.
            tracing::warn!(reason = %error, "the alarm cannot be set");
            return Poll::Ready(());
        }
        let mut count = [0; 8];
        let read = Pin::new(&mut self.timer).poll_read(cx, &mut ReadBuf::new(&mut count));
        if ready!(read).is_ok() {
            self.set = None;
        }
        Poll::Ready(())
    }

    fn set(&mut self, deadline: Option<Instant>) -> io::Result<()> {
        // All zero means: not set. A deadline at the very origin would look like that.
        let at = deadline.map_or(Duration::ZERO, |at| at.since_origin().max(Duration::from_nanos(1)));
        let at = Timespec {
            tv_sec: i64::try_from(at.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(at.subsec_nanos()),
        };
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        let once = Itimerspec { it_interval: never, it_value: at };
        timerfd_settime(self.timer.as_fd(), TimerfdTimerFlags::ABSTIME, &once)?;
        self.set = deadline;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;
    use crate::edge::clock::Clock;

    #[tokio::test]
    async fn it_goes_off_when_its_deadline_has_come_however_often_that_was_changed() {
        let mut alarm = Alarm::new().unwrap();
        let far = Clock.now() + Duration::from_secs(3600);
        let near = Clock.now() + Duration::from_millis(20);
        poll_fn(|cx| {
            assert!(alarm.poll(cx, Some(far)).is_pending());
            assert!(alarm.poll(cx, None).is_pending());
            Poll::Ready(())
        })
        .await;
        poll_fn(|cx| alarm.poll(cx, Some(near))).await;
        assert!(Clock.now() >= near);
        let past = Clock.now();
        poll_fn(|cx| alarm.poll(cx, Some(past))).await;
        poll_fn(|cx| alarm.poll(cx, Some(Instant::default()))).await;
    }
}
