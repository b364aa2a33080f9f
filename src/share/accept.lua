-- Decides which changes of bindings are accepted, and stores those. All keys are of one shard.
-- KEYS: the stream of changes, the counter of positions, then the hash of each change's address.
-- ARGV: how many changes the stream keeps, then the field and the value of each change.
-- Returns for each change: "a" and its position if it is accepted, "s" and the position of that very version, "b" and the better
-- value that is there, "o" if its lease is over by Redis's clock, or "e" and why this address cannot be shared.

-- A field is kept for so long after its lease: the servers know Redis's clock, but not to the millisecond.
local GRACE_MS = 60000

local function text(value, name)
    local escaped = string.match(value, '&' .. name .. '=([^&]*)')
    return escaped and (string.gsub(escaped, '%%(%x%x)', function(digits) return string.char(tonumber(digits, 16)) end))
end

local function number(value, name)
    return tonumber(string.match(value, '&' .. name .. '=(%d+)'))
end

-- A position that nobody has counted to is none; above 2^53 Lua does not count.
local function sound(position)
    local is_sound = position and position >= 0 and position < 2 ^ 53
    return is_sound and math.floor(position) or 0
end

-- The order of bytes. Lua's own follows the server's language.
local function is_greater(one, other)
    for at = 1, math.min(#one, #other) do
        local a, b = string.byte(one, at), string.byte(other, at)
        if a ~= b then
            return a > b
        end
    end
    return #one > #other
end

local function claim(value)
    if string.sub(value, 1, 4) ~= 'v=1&' then
        return nil
    end
    local claim = {
        series = number(value, 'series'), cseq = number(value, 'cseq'), time = number(value, 'time'),
        node = text(value, 'node'), call = text(value, 'call'), lease = number(value, 'lease'),
    }
    local is_whole = claim.series and claim.cseq and claim.time and claim.node and claim.call and claim.lease
    return is_whole and claim or nil
end

local function is_same(one, other)
    return one.series == other.series and one.cseq == other.cseq and one.time == other.time
        and one.node == other.node and one.call == other.call
end

local function wins_over(new, old)
    if new.call == old.call and new.series ~= old.series then
        return new.series > old.series
    end
    if new.call == old.call and new.cseq ~= old.cseq then
        return new.cseq > old.cseq
    end
    if new.time ~= old.time then
        return new.time > old.time
    end
    if new.node ~= old.node then
        return is_greater(new.node, old.node)
    end
    return is_greater(new.call, old.call)
end

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local now_us = time[1] * 1000000 + time[2]
local last = 0
local prefix = #KEYS[1] - #'changes' + #'aor:'
local answers = {}

-- Returns the value of a field, and the last lease of all others. What is over is removed.
local function look(key, all, field)
    local old, latest = nil, 0
    for at = 1, #all, 2 do
        local lease = number(all[at + 1], 'lease')
        if lease and lease + GRACE_MS < now_ms then
            redis.call('HDEL', key, all[at])
        elseif all[at] == field then
            old = all[at + 1]
        elseif lease then
            latest = math.max(latest, lease)
        end
    end
    return old, latest
end

local function accept(key, field, value, latest)
    -- Later than any before, also if Redis has lost some of those.
    local position = string.format('%.0f', math.max(last + 1, now_us))
    local stored = value .. '&position=' .. position
    redis.call('HSET', key, field, stored)
    local address = string.sub(key, prefix + 1)
    local after = string.format('%.0f', last)
    redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'aor', address, 'field', field, 'value', stored, 'after', after)
    last = tonumber(position)
    redis.call('SET', KEYS[2], position)
    local left_ms = redis.call('PTTL', key)
    if left_ms < 0 or now_ms + left_ms < latest + GRACE_MS then
        redis.call('PEXPIREAT', key, string.format('%.0f', latest + GRACE_MS))
    end
    return 'a' .. position
end

local function judge(key, field, value)
    local all = redis.pcall('HGETALL', key)
    if all.err then
        return 'e' .. all.err
    end
    local old, latest = look(key, all, field)
    local new, held = claim(value), old and claim(old)
    if not new then
        return 'eno version in what is told'
    end
    if new.lease <= now_ms then
        return 'o'
    end
    if old and not held then
        return 'ewhat is there cannot be read'
    end
    if held and is_same(new, held) then
        return 's' .. string.format('%.0f', sound(number(old, 'position')))
    end
    if held and not wins_over(new, held) then
        return 'b' .. old
    end
    return accept(key, field, value, math.max(latest, new.lease))
end

local counter = redis.call('TYPE', KEYS[2]).ok
if counter ~= 'none' and counter ~= 'string' then
    return redis.error_reply('WRONGTYPE ' .. KEYS[2] .. ' is no string')
end
last = sound(tonumber(redis.call('GET', KEYS[2]) or '0'))
local kind = redis.call('TYPE', KEYS[1]).ok
if kind ~= 'none' and kind ~= 'stream' then
    return redis.error_reply('WRONGTYPE ' .. KEYS[1] .. ' is no stream')
end
for at = 3, #KEYS do
    answers[at - 2] = judge(KEYS[at], ARGV[2 * at - 4], ARGV[2 * at - 3])
end
return answers
