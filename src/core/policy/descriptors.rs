//! How many connections the file descriptors of a process allow.

/// Look-ups of host names at once, where descriptors allow.
pub const MOST_LOOK_UPS: usize = 64;

/// `getaddrinfo` has a socket and a file open at worst.
const DESCRIPTORS_A_LOOK_UP: usize = 2;

/// Idle connections of all threads together.
const KEPT_CONNECTIONS: usize = 512;

/// What delivery threads may have open at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    pub connections: usize,
    /// Idle ones beside them, at least one a thread.
    pub kept_connections: usize,
    pub look_ups: usize,
}

impl Plan {
    /// With as many descriptors as it takes.
    pub fn unlimited(connections: usize) -> Self {
        Self {
            connections,
            kept_connections: KEPT_CONNECTIONS.max(connections),
            look_ups: MOST_LOOK_UPS,
        }
    }

    /// The most of the `connections` that `available` descriptors allow, but one.
    pub fn within(connections: usize, available: usize) -> Self {
        let whole = Self::unlimited(connections);
        if whole.descriptors() <= available {
            return whole;
        }
        // Each thread has a connection and keeps another one.
        let look_ups = MOST_LOOK_UPS * DESCRIPTORS_A_LOOK_UP;
        let most = if available >= MOST_LOOK_UPS * 2 + look_ups {
            (available - look_ups) / 2
        } else {
            available / (2 + DESCRIPTORS_A_LOOK_UP)
        };
        let connections = connections.min(most).max(1);
        let look_ups = MOST_LOOK_UPS.min(connections);
        let left = available.saturating_sub(connections + look_ups * DESCRIPTORS_A_LOOK_UP);
        Self {
            connections,
            kept_connections: left.clamp(connections, KEPT_CONNECTIONS.max(connections)),
            look_ups,
        }
    }

    /// Descriptors it takes at worst.
    pub fn descriptors(&self) -> usize {
        self.connections + self.kept_connections + self.look_ups * DESCRIPTORS_A_LOOK_UP
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_enough_descriptors_nothing_is_given_up() {
        for connections in [1, 64, 512, 1000] {
            let whole = Plan::unlimited(connections);
            assert_eq!(Plan::within(connections, whole.descriptors()), whole);
            assert_eq!(whole.connections, connections);
        }
    }

    #[test]
    fn a_plan_stays_within_what_is_available() {
        for connections in [1, 64, 1000] {
            for available in 4..5000 {
                let plan = Plan::within(connections, available);
                assert!(plan.descriptors() <= available, "{available}: {plan:?}");
                assert!(plan.connections >= 1 && plan.look_ups >= 1, "{plan:?}");
                assert!(plan.kept_connections >= plan.connections, "{plan:?}");
            }
        }
    }

    #[test]
    fn few_descriptors_allow_few_connections() {
        assert_eq!(Plan::within(1000, 96).connections, 24);
        assert_eq!(Plan::within(1000, 2000).connections, 936);
        assert_eq!(Plan::within(64, 300).connections, 64);
    }
}
