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

/** A hold that is under way: chosen seats, or the best that there are. */
export interface Intent {
  key: string;
  /** The turn that it is of. */
  token: string;
  /** Their ids. */
  seats: number[];
  best?: { count: number; grade?: string; section?: string; together?: boolean };
}

export interface Price {
  /** Null without a plan. */
  grade?: string | null;
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
  /** The digest of its hall's plan. */
  plan?: string | null;
}

export interface ListedConcert {
  concertId: number;
  name: string;
  venue: string;
  queue: string;
  reservationOpensAt: string;
  reservationClosesAt: string;
  state: 'SCHEDULED' | 'OPEN' | 'SOLD_OUT' | 'ENDED' | 'CANCELLED';
}

export interface Concert extends ListedConcert {
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
  reservedSeats: ReservedSeat[];
  paymentId: number | null;
}

export interface ReservedSeat {
  seatId: number;
  number: number;
  price: number;
  /** Where it is in its hall; row and position are absent for standing. */
  place?: { section: string; row?: string; number: string; grade: string; x?: number; y?: number };
}

/** A hall as the service describes it. */
export interface Plan {
  name: string;
  width: number;
  height: number;
  stage: { x: number; y: number };
  grades: string[];
  sections: PlanSection[];
}

export type PlanSection =
  | { name: string; standing: false; rows: PlanRow[] }
  | { name: string; standing: true; count: number; grade: number; x: number; y: number; width: number; height: number };

/** Each axis by itself: equal distances, or the first and how far each is from the one before. */
export interface PlanRow {
  name: string;
  count: number;
  x?: number;
  y?: number;
  dx?: number;
  dy?: number;
  xs?: number[];
  ys?: number[];
  first?: number;
  step?: number;
  labels?: string[];
  grade?: number;
  grades?: number[];
  /** Places before which there is an aisle. */
  gaps?: number[];
}

/** How the places of a session stand: all of them, or those that changed. */
export interface States {
  version: string;
  count?: number;
  seatIds?: [number, number, number][];
  /** Two bits each, in base64. */
  states?: string;
  free?: number[];
  held?: number[];
  sold?: number[];
}

export interface Box {
  x: number;
  y: number;
  w: number;
  h: number;
}

/** A grade of a session, or a price of one without grades. */
export interface Grade {
  name: string;
  /** Short, for a seat. */
  sign: string;
  price: number;
  /** How many were free when it was read. */
  free: number;
}

/** A hall in the browser. Lists of places have that of number n at n - 1. */
export interface Hall {
  total: number;
  grades: Grade[];
  sections: Section[];
  rows: Row[];
  stage: { x: number; y: number } | null;
  /** Whether there is more to it than numbers. */
  hasPlan: boolean;
  /** Numbers and ids: the first of each, and how many. */
  ids: [number, number, number][];
  x: Float32Array;
  y: Float32Array;
  grade: Uint16Array;
  row: Uint32Array;
  /** 1 where the place before is not next to it. */
  begins: Uint8Array;
  states: Uint8Array;
}

export interface Section {
  name: string;
  isStanding: boolean;
  /** The number of its first place. */
  first: number;
  count: number;
  /** From, and up to but not with. */
  rows: [number, number];
  box: Box;
  /** Which there are. */
  grades: number[];
  /** How many are free of each. */
  free: number[];
}

export interface Row {
  name: string;
  section: number;
  /** The number of its first place. */
  first: number;
  count: number;
  label: (k: number) => string;
}

/** What a place is for whoever looks at it. */
export interface Look {
  look: 'free' | 'chosen' | 'held' | 'sold' | 'lost';
  /** What is written there in place of its number. */
  sign: string;
  /** In words. */
  status: string;
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
