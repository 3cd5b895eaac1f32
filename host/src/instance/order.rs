//! Orders to an instance, and the reasons for which it stops.

/// An order to an instance from an operator, the pool or the host. A new order replaces the old one, except that nothing
/// replaces `CutOff`, and only that replaces a stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Take jobs.
    Run,
    /// Suspend as soon as it is active.
    Suspend,
    /// Stop gracefully.
    Stop(StopReason),
    /// End at once, whatever runs in it.
    CutOff(CutOff),
}

/// Why an instance is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CutOff {
    /// The host must have its memory back.
    HostMemory,
    /// The time for the host's drain is over.
    DrainOver,
}

/// Why an instance stops gracefully.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StopReason {
    /// Parked longer than `idleTimeoutMs`.
    Idle,
    /// The function has new code or a new configuration.
    Updated,
    /// The function was deleted.
    Deleted,
    /// An operator stopped this instance.
    Operator,
    /// The host needs the room.
    Evicted,
    /// The host shuts down.
    Shutdown,
    /// A request in it timed out.
    RequestTimedOut,
    /// It answered as many requests as `maxRequestsPerInstance` allows.
    Spent,
}

impl StopReason {
    /// All reasons, in the order of their declaration, which their codes follow.
    pub const ALL: [StopReason; 8] = [
        StopReason::Idle,
        StopReason::Updated,
        StopReason::Deleted,
        StopReason::Operator,
        StopReason::Evicted,
        StopReason::Shutdown,
        StopReason::RequestTimedOut,
        StopReason::Spent,
    ];

    /// The reason's name in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            StopReason::Idle => "idle",
            StopReason::Updated => "updated",
            StopReason::Deleted => "deleted",
            StopReason::Operator => "operator",
            StopReason::Evicted => "evicted",
            StopReason::Shutdown => "shutdown",
            StopReason::RequestTimedOut => "request-timed-out",
            StopReason::Spent => "spent",
        }
    }
}

impl Order {
    /// Whether this order takes the place of the one before.
    pub(super) fn replaces(self, before: Order) -> bool {
        match before {
            Order::CutOff(_) => false,
            Order::Stop(_) => matches!(self, Order::CutOff(_)),
            Order::Run | Order::Suspend => true,
        }
    }
}

/// Orders as one byte, so that an inbox keeps the newest one in an atomic.
impl Order {
    const RUN: u8 = 0;
    const SUSPEND: u8 = 1;
    const CUT_OFF_HOST_MEMORY: u8 = 2;
    const CUT_OFF_DRAIN_OVER: u8 = 3;
    /// The first reason to stop; the others follow in the order of `StopReason::ALL`.
    const STOP: u8 = 4;

    pub(super) fn code(self) -> u8 {
        match self {
            Order::Run => Self::RUN,
            Order::Suspend => Self::SUSPEND,
            Order::CutOff(CutOff::HostMemory) => Self::CUT_OFF_HOST_MEMORY,
            Order::CutOff(CutOff::DrainOver) => Self::CUT_OFF_DRAIN_OVER,
            Order::Stop(reason) => Self::STOP + reason as u8,
        }
    }

    pub(super) fn from_code(code: u8) -> Order {
        match code {
            Self::RUN => Order::Run,
            Self::SUSPEND => Order::Suspend,
            Self::CUT_OFF_HOST_MEMORY => Order::CutOff(CutOff::HostMemory),
            Self::CUT_OFF_DRAIN_OVER => Order::CutOff(CutOff::DrainOver),
            stop => Order::Stop(StopReason::ALL[usize::from(stop - Self::STOP)]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_order_survives_its_code() {
        let stops = StopReason::ALL.map(Order::Stop);
        let cuts = [CutOff::HostMemory, CutOff::DrainOver].map(Order::CutOff);
        for order in [Order::Run, Order::Suspend].into_iter().chain(cuts).chain(stops) {
            assert_eq!(Order::from_code(order.code()), order);
        }
    }
}
