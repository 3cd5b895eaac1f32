//! The state machine of an instance: pure and whole.
//!
//! ```text
//! starting -> initializing -> active -> freezing -> parked -> active ...
//!                               |  ^       |  (a request came first: back to active)
//!                               v  |       v
//!                             suspended   stopping -> stopped      (from every state but stopped)
//! ```

use State::{Active, Freezing, Initializing, Parked, Starting, Stopped, Stopping, Suspended};

/// The state of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Being instantiated; left by `Booted`.
    Starting,
    /// In its initializer, if it has one; left by `Ready`.
    Initializing,
    /// Running requests, or lingering after the last one; left by `Idle` and `Suspend`.
    Active,
    /// In pre-freeze; left by `Frozen`, or by `Wanted` if a request comes first.
    Freezing,
    /// Asleep between requests: a plain value that nothing polls; left by `Wanted`.
    Parked,
    /// Halted in the middle of execution; left by `Resume`.
    Suspended,
    /// Takes no new request, lets those in flight end, then calls pre-stop; left by `Gone`.
    Stopping,
    /// Gone. Nothing leaves it.
    Stopped,
}

/// What moves an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The component is instantiated.
    Booted,
    /// The initializer returned, or there is none.
    Ready,
    /// No request in flight for as long as the linger says.
    Idle,
    /// Pre-freeze ended, or there is none.
    Frozen,
    /// A request wants the instance.
    Wanted,
    /// An operator, or a budget, halts it.
    Suspend,
    /// It may continue.
    Resume,
    /// It must stop gracefully.
    Stop,
    /// It cannot be called any more: it trapped, failed to start, or was killed.
    Failed,
    /// Pre-stop has ended, or there is none.
    Gone,
}

/// A move that no state allows: a bug in the driver, never in a guest.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("an instance that is {state:?} cannot take {event:?}")]
pub struct Refused {
    state: State,
    event: Event,
}

impl State {
    /// The only place where a state changes.
    pub fn next(self, event: Event) -> Result<State, Refused> {
        Ok(match (self, event) {
            (Starting, Event::Booted) => Initializing,
            (Initializing, Event::Ready) => Active,
            (Active, Event::Idle) => Freezing,
            (Freezing, Event::Wanted) => Active, // A request came first: the instance was never parked.
            (Freezing, Event::Frozen) => Parked,
            (Active | Freezing, Event::Suspend) => Suspended,
            (Parked, Event::Wanted) | (Suspended, Event::Resume) => Active,
            (Starting | Initializing | Active | Freezing | Parked | Suspended, Event::Stop) => Stopping,
            (Starting | Initializing | Active | Freezing | Parked | Suspended | Stopping, Event::Failed)
            | (Stopping, Event::Gone) => Stopped,
            (state, event) => return Err(Refused { state, event }),
        })
    }

    /// The state's name in the API, in metrics and in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Starting => "starting",
            Initializing => "initializing",
            Active => "active",
            Freezing => "freezing",
            Parked => "parked",
            Suspended => "suspended",
            Stopping => "stopping",
            Stopped => "stopped",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [State; 8] = [Starting, Initializing, Active, Freezing, Parked, Suspended, Stopping, Stopped];

    const EVENTS: [Event; 10] = [
        Event::Booted,
        Event::Ready,
        Event::Idle,
        Event::Frozen,
        Event::Wanted,
        Event::Suspend,
        Event::Resume,
        Event::Stop,
        Event::Failed,
        Event::Gone,
    ];

    /// Rows are states, columns events, in the order above; `-` is refused.
    const TABLE: &str = "\
starting:     initializing - - - - - - stopping stopped -
initializing: - active - - - - - stopping stopped -
active:       - - freezing - - suspended - stopping stopped -
freezing:     - - - parked active suspended - stopping stopped -
parked:       - - - - active - - stopping stopped -
suspended:    - - - - - - active stopping stopped -
stopping:     - - - - - - - - stopped stopped
stopped:      - - - - - - - - - -
";

    #[test]
    fn every_pair_of_state_and_event_is_in_the_table() {
        let mut printed = String::new();
        for state in STATES {
            let name = format!("{}:", state.as_str());
            let moves = EVENTS.map(|event| state.next(event).map_or("-", State::as_str));
            printed += &format!("{name:<13} {}\n", moves.join(" "));
        }
        assert_eq!(printed, TABLE);
    }

    #[test]
    fn a_refused_move_names_state_and_event() {
        let refused = Stopped.next(Event::Wanted).unwrap_err();
        assert_eq!(refused.to_string(), "an instance that is Stopped cannot take Wanted");
    }
}
