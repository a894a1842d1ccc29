-- The next ARGV[3] numbers of the queue ARGV[2], all above ARGV[4]. Where fewer than ARGV[5] are left,
-- one caller is told to fetch more; KEYS[3] says that somebody is at it.
local count = tonumber(ARGV[3])
local q = load(ARGV[2])
local before = q.next
q.next = math.max(q.next, tonumber(ARGV[4]))
local first = q.next + 1
local given = q.next + count <= q.limit
if given then
  q.next, q.given = q.next + count, q.given + count
end
if q.next > before then save(ARGV[2], q) end
local left = math.max(q.limit - q.next, 0)
local fetch = 0
if left < tonumber(ARGV[5]) and redis.call('SET', KEYS[3], '1', 'NX', 'PX', 2000) then fetch = 1 end
return { given and 'OK' or 'SHORT', first, first - 1 - before, fetch, gen, q.limit, left }
