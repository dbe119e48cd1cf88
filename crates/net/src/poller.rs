//! What a thread of ours sleeps on: sockets, and calls of `wake` from other threads.
//!
//! On Linux that is epoll, which costs one system call per sleep. Other systems have kqueue or completion ports, behind
//! the crate `polling`. With the feature `portable` that runs on Linux, too, so that it is tested there. Both have the same
//! methods, and watch sockets level-triggered.

#[cfg(windows)]
mod clock;
#[cfg(all(target_os = "linux", not(feature = "portable")))]
mod epoll;
#[cfg(not(all(target_os = "linux", not(feature = "portable"))))]
mod portable;

#[cfg(all(target_os = "linux", not(feature = "portable")))]
pub(crate) use epoll::{Poller, Ready};
#[cfg(not(all(target_os = "linux", not(feature = "portable"))))]
pub(crate) use portable::{Poller, Ready};

/// Token of a poller's only socket.
pub(crate) const NAMELESS: u64 = 0;

#[cfg(test)]
mod tests {
    use std::{
        net::UdpSocket,
        sync::Arc,
        time::{Duration, Instant},
    };

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn socket() -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    }

    fn send_to(socket: &UdpSocket) {
        self::socket().send_to(b"hello", socket.local_addr().unwrap()).unwrap();
    }

    fn ready(poller: &Poller) -> Vec<u64> {
        let mut scratch = Vec::new();
        poller.ready(&mut scratch, 8).collect()
    }

    #[test]
    fn a_socket_is_named_until_it_was_read_and_no_longer() {
        let poller = Poller::new().unwrap();
        let (one, other) = (socket(), socket());
        poller.add(&one, 1).unwrap();
        poller.add(&other, 2).unwrap();
        assert!(ready(&poller).is_empty());
        send_to(&other);
        assert!(poller.wait(PATIENCE));
        // As long as there is something to read, each look finds it.
        assert_eq!(ready(&poller), [2]);
        assert_eq!(ready(&poller), [2]);
        other.recv(&mut [0; 16]).unwrap();
        assert!(ready(&poller).is_empty());
        send_to(&one);
        poller.forget(&one);
        drop(one);
        assert!(ready(&poller).is_empty());
        poller.forget(&other);
    }

    #[test]
    fn a_closed_socket_leaves_its_number_to_the_next() {
        let poller = Poller::new().unwrap();
        for token in 1..20 {
            let socket = socket();
            poller.add(&socket, token).unwrap();
            send_to(&socket);
            assert!(poller.wait(PATIENCE));
            assert_eq!(ready(&poller), [token]);
            poller.forget(&socket);
        }
    }

    #[test]
    fn room_is_told_only_to_who_wants_it() {
        let poller = Poller::new().unwrap();
        let socket = socket();
        poller.add(&socket, 1).unwrap();
        assert!(ready(&poller).is_empty());
        poller.want_room(&socket, 1, true).unwrap();
        assert_eq!(ready(&poller), [1]);
        poller.want_room(&socket, 1, false).unwrap();
        assert!(ready(&poller).is_empty());
        poller.forget(&socket);
    }

    #[test]
    fn another_thread_ends_a_sleep_or_the_next_one() {
        let poller = Arc::new(Poller::new().unwrap());
        let start = Instant::now();
        poller.wake();
        poller.wait(PATIENCE);
        poller.drain();
        let waker = {
            let poller = poller.clone();
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(20));
                poller.wake();
            })
        };
        poller.wait(PATIENCE);
        poller.drain();
        waker.join().unwrap();
        assert!(start.elapsed() < PATIENCE);
        // And they are forgotten.
        assert!(!poller.wait(Duration::from_millis(1)));
    }
}
