-- Every script begins with this. KEYS[1] is the state, KEYS[2] the log, ARGV[1] the cluster's id.
-- What was kept here counts only in the process, and the term as a master, in which it was written: an
-- older copy (a snapshot, a replica that lagged) would give numbers a second time. It is one key, so
-- that no part of it can go without the rest.
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
  redis.call('DEL', KEYS[1], KEYS[2])
  redis.call('HSET', KEYS[1], 'cluster', ARGV[1], 'run', run, 'gen', gen, 'seq', 0)
end
-- A queue: the last number given, the last one that the store has granted, and how many were given.
local function load(queue)
  local q = redis.call('HMGET', KEYS[1], queue .. ':next', queue .. ':limit', queue .. ':given')
  return { next = tonumber(q[1]) or 0, limit = tonumber(q[2]) or 0, given = tonumber(q[3]) or 0 }
end
local function save(queue, q)
  redis.call('HSET', KEYS[1], queue .. ':next', q.next, queue .. ':limit', q.limit,
    queue .. ':given', q.given)
end
