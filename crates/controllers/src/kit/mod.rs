//! Shared tools of the controllers.
