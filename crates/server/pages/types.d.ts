// What the pages keep and what the service answers, for the type checker alone; never served.

export interface Place {
  queue: string;
  user: string;
  key: string;
  concert?: string;
  token?: string;
  status?: 'WAITING' | 'ACTIVATED' | 'EXPIRED';
  number?: number | null;
  reason?: string | null;
  activeUntil?: string | null;
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

/** What can stand in an element. */
export type Child = Node | string | number | null | undefined | false;
