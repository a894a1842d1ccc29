-- The store has granted ARGV[4] to ARGV[5] of the queue ARGV[2] to the pool of the generation ARGV[3].
-- What is left below a gap was overtaken by numbers that the store gave itself.
if ARGV[3] ~= gen then return { 'DROPPED' } end
redis.call('HDEL', KEYS[1], ARGV[2] .. ':fetching')
local first, last = tonumber(ARGV[4]), tonumber(ARGV[5])
local q = load(ARGV[2])
if first <= q.limit then return { 'DROPPED' } end
if first > q.limit + 1 then q.next = math.max(q.next, first - 1) end
q.limit = last
save(ARGV[2], q)
return { 'OK' }
