// What the console is told by the service, for the type checker alone; never served.

import type { Answer, Child } from '../types.js';
export type { Answer, Child };

export type Role = 'viewer' | 'operator' | 'admin' | 'cashier';

export interface Me {
  name: string;
  role: Role;
  until: string | null;
}

export type QueueState = 'OPEN' | 'PAUSED' | 'SCHEDULED' | 'SOLD_OUT' | 'ENDED';

/** What of a queue operators change. */
export interface Settings {
  admitPerSecond: number;
  maxActive: number | null;
  opensAt: string | null;
  paused: boolean;
}

export interface Queue extends Settings {
  queue: string;
  state: QueueState;
  next: number;
  serving: number;
  waiting: number;
  active: number;
  opening: 'fifo' | 'draw';
  etag: string;
  logId?: number;
}

export interface LiveQueue extends Settings {
  /** By its own time and the first sale behind it; null where that is not to come. */
  openingAt: string | null;
  queue: string;
  state: QueueState;
  etag: string;
  admittingPerSecond: number;
  waiting: number;
  active: number;
  joinsPerSecond: number;
  admittedPerSecond: number;
  lastWaitSeconds: number | null;
  lineEmptyAt: string | null;
  seatsTotal: number;
  seatsLeft: number;
  paymentsPerSecond: number;
  seatsSoldPerSecond: number;
  minutesToSellOut: number | null;
}

export interface Grade {
  grade: string | null;
  price: number;
  total: number;
  free: number;
  held: number;
  sold: number;
  money: number;
}

export interface Deed {
  id: number;
  at: string;
  who: string;
  operation: string;
  target: string;
  before: string | null;
  after: string | null;
  reason: string | null;
  undoes: number | null;
}

export interface LoggedDeed extends Deed {
  role: Role;
  origin: string;
}

export interface Alarm {
  code: string;
  level: 'critical' | 'warning';
  target: string | null;
  detail: string;
  since: string;
}

export interface Live {
  at: string;
  version: string;
  /** Only where there are several. */
  instance: string | null;
  instances: { instance: string; seenAt: string }[];
  queues: LiveQueue[];
  governor: { share: number; reason: 'full' | 'refusing' | 'waiting' | 'rising' };
  concerts: { concertId: number; name: string; queue: string; sessions: { sessionId: number; concertAt: string; grades: Grade[] }[] }[];
  sessionsLeftOut: number;
  queuesLeftOut: number;
  health: { status: string; dependencies: { name: string; status: 'UP' | 'DEGRADED' | 'DOWN'; detail: string | null }[] };
  requests: { unavailable: number; asked: number; p95Ms: { polls: number | null; purchases: number | null } };
  alarms: Alarm[];
  actions: Deed[];
}

type Column = (number | null)[];

/** Curves: a value for every few seconds, the last one the newest. */
export interface Curves {
  queue: string;
  waiting: Column;
  joinsPerSecond: Column;
  admittedPerSecond: Column;
  active: Column;
  paymentsPerSecond: Column;
}

export interface History {
  everySeconds: number;
  until: string;
  /** How many there are yet. */
  points: number;
  queues: Curves[];
}

/** How it stands, or would. */
export interface Outlook extends Settings {
  lastWaitSeconds: number | null;
  lineEmptyAt: string | null;
  insideAtMost: number | null;
}

export interface Preview {
  queue: string;
  at: string;
  now: Outlook;
  then: Outlook;
  waiting: number;
  inside: number;
  seatsLeft: number | null;
  seatsPerPurchase: number | null;
  buyersServed: number | null;
  warnings: { code: string; detail: string; limit?: number | null }[];
  etag: string;
}

export type { ListedConcert } from '../types.js';

export interface ListedSession {
  sessionId: number;
  concertId: number;
  concertAt: string;
  totalSeatCount: number;
  availableSeatCount: number;
  soldSeatCount: number;
  cancelledAt: string | null;
}

export interface Sale extends Grade {
  concertId: number;
  concert: string;
  sessionId: number;
  concertAt: string;
  cancelledAt: string | null;
}

export interface Order {
  reservationId: number;
  userId: number;
  concertId: number;
  sessionId: number;
  status: string;
  seatCount: number;
  totalPrice: number;
  createdAt: string;
  expiresAt: string;
  paymentId: number | null;
}

/** What the service says of a plan that was handed in. */
export interface PlanReport {
  name: string;
  digest?: string | null;
  placeCount: number;
  sections: { name: string; placeCount: number }[];
  grades: { grade: string; placeCount: number }[];
  problems: { what: string; where: string; with?: string | null }[];
  problemCount: number;
}

export interface AuditReport {
  clean: boolean;
  invariants: { code: string; title: string; checked: number; violations: number; examples: string[] }[];
}

/** What a ticket's code was found to be. */
export interface Verdict {
  valid: boolean;
  reason: string | null;
  detail: string | null;
  reservationId: number | null;
  concert: string | null;
  /** When it begins. */
  session: string | null;
  seats: string[];
  moreSeats: number;
}

/** Where a screen is shown. */
export interface View {
  /** What is behind the screen's address. */
  rest: string;
  query: URLSearchParams;
  /** Aborted when somebody goes elsewhere. */
  signal: AbortSignal;
}

export interface Screen {
  show(view: View): void | Promise<void>;
}

export interface ColumnOf<T> {
  name: string;
  isNumber?: boolean;
  isActs?: boolean;
  cell(row: T): Child | Child[];
}
