-- Every script begins with this. KEYS[1] is the state, KEYS[2] the log, ARGV[1] the cluster's id.
-- What was kept here counts only in the process, and the term as a master, in which it was written:
-- an older copy (a snapshot, a replica that lagged) would give numbers a second time.
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
  .. string.match(redis.call('INFO', 'replication'), 'master_replid:(%w+)')
local state = redis.call('HMGET', KEYS[1], 'run', 'gen', 'cluster')
local gen = state[2]
if state[3] and state[3] ~= ARGV[1] then
  return { 'FOREIGN', state[3] }
end
if state[1] ~= run or not gen then
  local time = redis.call('TIME')
  gen = run .. time[1] .. string.format('%06d', time[2])
  redis.call('HSET', KEYS[1], 'cluster', ARGV[1], 'run', run, 'gen', gen, 'seq', 0)
  redis.call('DEL', KEYS[2], KEYS[1] .. ':instances')
end
-- A queue: the last number given, the end of its block, the block that follows, whether the end lies
-- beyond what the store knows of, and how many numbers were given by this server.
local function load(key)
  local q = redis.call('HMGET', key, 'gen', 'next', 'limit', 'first2', 'limit2', 'loose', 'given')
  local next = tonumber(q[2]) or 0
  if q[1] ~= gen then
    return { next = next, limit = 0, first2 = 0, limit2 = 0, loose = 0, given = 0 }
  end
  return {
    next = next, limit = tonumber(q[3]), first2 = tonumber(q[4]), limit2 = tonumber(q[5]),
    loose = tonumber(q[6]), given = tonumber(q[7]),
  }
end
-- Leaves blocks behind that end below the last number given. Numbers beyond all of them were given by
-- the store: only the store knows how many.
local function settle(q)
  if q.limit2 > 0 and q.next > q.limit then
    q.next = math.max(q.next, q.first2 - 1)
    q.limit, q.first2, q.limit2 = q.limit2, 0, 0
  end
  if q.next > q.limit then q.limit, q.loose = 0, 0 end
end
local function save(key, q)
  redis.call('HSET', key, 'gen', gen, 'next', q.next, 'limit', q.limit, 'first2', q.first2,
    'limit2', q.limit2, 'loose', q.loose, 'given', q.given)
end
