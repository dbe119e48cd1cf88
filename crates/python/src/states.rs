//! Answers and states of streams, the causes of a connection's end, and the stages of a fork, with names.

use pyo3::prelude::*;
use wtio_engine::{ReceiveState, SendState, event};

/// What a read returns instead of bytes.
#[pyclass(frozen, eq, hash, rename_all = "SCREAMING_SNAKE_CASE", module = "wtio._core")]
#[derive(PartialEq, Eq, Hash)]
pub(crate) enum ReadAnswer {
    Wait,
    Ended,
    OverLimit,
}

/// Where the receiving or the sending half of a stream stands. A snapshot.
#[pyclass(frozen, module = "wtio._core")]
pub(crate) struct HalfState {
    stage: Stage,
    /// Of a reset or a stop, 0 otherwise.
    wire_code: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    None,
    Open,
    Ended,
    Finished,
    Acked,
    Reset,
    Stopped,
    Gone,
}

impl HalfState {
    fn new(stage: Stage) -> Self {
        Self { stage, wire_code: 0 }
    }
}

#[pymethods]
impl HalfState {
    #[getter]
    fn name(&self) -> &'static str {
        match self.stage {
            Stage::None => "none",
            Stage::Open => "open",
            Stage::Ended => "ended",
            Stage::Finished => "finished",
            Stage::Acked => "acked",
            Stage::Reset => "reset",
            Stage::Stopped => "stopped",
            Stage::Gone => "gone",
        }
    }

    #[getter]
    fn is_open(&self) -> bool {
        self.stage == Stage::Open
    }

    #[getter]
    fn is_ended(&self) -> bool {
        self.stage == Stage::Ended
    }

    #[getter]
    fn is_finished(&self) -> bool {
        self.stage == Stage::Finished
    }

    #[getter]
    fn is_acked(&self) -> bool {
        self.stage == Stage::Acked
    }

    #[getter]
    fn is_reset(&self) -> bool {
        self.stage == Stage::Reset
    }

    #[getter]
    fn is_stopped(&self) -> bool {
        self.stage == Stage::Stopped
    }

    #[getter]
    fn is_gone(&self) -> bool {
        self.stage == Stage::Gone
    }

    #[getter]
    fn wire_code(&self) -> u64 {
        self.wire_code
    }
}

impl From<ReceiveState> for HalfState {
    fn from(state: ReceiveState) -> Self {
        match state {
            ReceiveState::None => Self::new(Stage::None),
            ReceiveState::Open => Self::new(Stage::Open),
            ReceiveState::Ended => Self::new(Stage::Ended),
            ReceiveState::Reset(wire_code) => Self { stage: Stage::Reset, wire_code },
            ReceiveState::Stopped(wire_code) => Self { stage: Stage::Stopped, wire_code },
            ReceiveState::Gone => Self::new(Stage::Gone),
        }
    }
}

impl From<SendState> for HalfState {
    fn from(state: SendState) -> Self {
        match state {
            SendState::None => Self::new(Stage::None),
            SendState::Open => Self::new(Stage::Open),
            SendState::Finished => Self::new(Stage::Finished),
            SendState::Acked => Self::new(Stage::Acked),
            SendState::Reset(wire_code) => Self { stage: Stage::Reset, wire_code },
            SendState::Stopped(wire_code) => Self { stage: Stage::Stopped, wire_code },
            SendState::Gone => Self::new(Stage::Gone),
        }
    }
}

/// Why a connection ended.
#[pyclass(frozen, eq, hash, rename_all = "SCREAMING_SNAKE_CASE", module = "wtio._core")]
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) enum CloseCause {
    Application,
    Transport,
    Protocol,
    Tls,
    Idle,
    Reset,
    Local,
    Version,
    Refused,
    Unreachable,
}

#[pymethods]
impl CloseCause {
    #[getter]
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Application => "application",
            Self::Transport => "transport",
            Self::Protocol => "protocol",
            Self::Tls => "tls",
            Self::Idle => "idle",
            Self::Reset => "reset",
            Self::Local => "local",
            Self::Version => "version",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
        }
    }
}

impl From<event::CloseCause> for CloseCause {
    fn from(cause: event::CloseCause) -> Self {
        match cause {
            event::CloseCause::Application => Self::Application,
            event::CloseCause::Transport => Self::Transport,
            event::CloseCause::Protocol => Self::Protocol,
            event::CloseCause::Tls => Self::Tls,
            event::CloseCause::Idle => Self::Idle,
            event::CloseCause::Reset => Self::Reset,
            event::CloseCause::Local => Self::Local,
            event::CloseCause::Version => Self::Version,
            event::CloseCause::Refused => Self::Refused,
        }
    }
}

/// When, around a fork, something is done.
#[pyclass(frozen, eq, hash, from_py_object, rename_all = "SCREAMING_SNAKE_CASE", module = "wtio._core")]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ForkStage {
    Before,
    Parent,
    Child,
}
