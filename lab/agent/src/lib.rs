//! The lab's guest agent.
