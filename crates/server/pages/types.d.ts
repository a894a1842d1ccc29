// What the pages keep and what the service answers, for the type checker alone; never served.

/** A place in a line. The waiting page keeps it; the others read it. */
export interface Place {
  queue: string;
  user: string;
  /** The idempotency key of the join, kept before it is sent. */
  key: string;
  /** Where to go on to. */
  concert?: string;
  token?: string;
  status?: 'WAITING' | 'ACTIVATED' | 'EXPIRED';
  /** The smallest seen: instances differ for a moment. Null before a draw. */
  number?: number | null;
  /** The first seen, for the bar. */
  first?: number;
  eta?: number | null;
  queueState?: string;
  reason?: string | null;
  activeUntil?: string | null;
  /** What a gate wants to see. */
  pass?: string | null;
  /** When this was so, by the service's clock. */
  at?: number;
  opensAt?: string | null;
  /** How many wait in all. */
  waiting?: number;
  /** The code of a refusal to join that stays. */
  over?: string;
  /** The code that says that the place is not known. */
  lost?: string;
}

export interface Hold {
  rid: number;
  user: string;
  token: string;
  concert: number;
  session: number;
  status: ReservationStatus;
  expiresAt: string;
  /** The concert's name, for lists. */
  name?: string;
  /** Idempotency keys, kept before what they are for is sent. */
  payKey?: string;
  refundKey?: string;
  chargeKey?: string;
  chargeAmount?: number;
}

export interface Answer {
  status: number;
  ok: boolean;
  body: any;
  code: string;
  retryAfter: number;
  etag: string;
}

export interface Price {
  price: number;
  totalSeatCount: number;
  availableSeatCount: number;
}

export interface Session {
  sessionId: number;
  concertAt: string;
  totalSeatCount: number;
  availableSeatCount: number;
  cancelled: boolean;
  prices: Price[];
}

export interface ListedConcert {
  concertId: number;
  name: string;
  venue: string;
  queue: string;
  reservationOpensAt: string;
  reservationClosesAt: string;
}

export interface Concert extends ListedConcert {
  state: 'SCHEDULED' | 'OPEN' | 'SOLD_OUT' | 'ENDED' | 'CANCELLED';
  sessions: Session[];
}

export interface Seat {
  seatId: number;
  number: number;
  status: 'AVAILABLE' | 'TEMPORARY_RESERVED' | 'CONFIRMED';
  price: number;
}

export type ReservationStatus = 'HELD' | 'PAID' | 'CANCELLED' | 'EXPIRED' | 'REFUNDED';

export interface Reservation {
  reservationId: number;
  userId: number;
  concertId: number;
  sessionId: number;
  status: ReservationStatus;
  totalPrice: number;
  reservedAt: string;
  expiresAt: string;
  reservedSeats: { seatId: number; number: number; price: number }[];
  paymentId: number | null;
}

/** What is shown at the venue, signed. */
export interface Code {
  code: string;
  size: number;
  path: string;
}

/** A ticket as it was shown last. */
export interface Shown {
  reservation: Reservation;
  concert: Concert | null;
  code: Code;
  /** When it was signed, by the service's clock. */
  at: number;
}

/** What can stand in an element. */
export type Child = Node | string | number | null | undefined | false;

/** What keeps a waiting page from asking. */
export type Trouble = 'offline' | 'unreachable' | 'busy';

/** What waiting pages of one browser tell each other. */
export interface Message {
  /** Somebody new wants to know how it stands. */
  hello?: boolean;
  /** The fan wants it to be asked now. */
  hurry?: boolean;
  place?: Place | null;
  trouble?: Trouble | null;
  nextAt?: number;
}
