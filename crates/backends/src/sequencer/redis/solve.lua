-- The solution KEYS[4] of a challenge is used by ARGV[2], and remembered for ARGV[3] seconds. Answers whether it is used
-- for the first time, and by whom it was.
local first = redis.call('HGET', KEYS[4], 'by')
if first then return { 'OK', 0, first } end
redis.call('HSET', KEYS[4], 'by', ARGV[2])
redis.call('EXPIRE', KEYS[4], ARGV[3])
return { 'OK', 1, ARGV[2] }
