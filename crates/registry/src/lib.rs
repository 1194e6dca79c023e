//! The control plane: functions, versions, aliases, layers and what belongs to them.
