import { PassportStrategy } from '@nestjs/passport'
import { ApiKeyStrategy } from 'latchkey/passport'
import { describe, expect, it } from 'vitest'

const NO_OPTIONS = /^"options" must be an object with "keys", what createApiKeys\(\) returned, received/
const NO_KEYS = /^"keys" must be what createApiKeys\(\) returned/

describe('a strategy without keys', () => {
  it.each<[string, readonly unknown[], RegExp]>([
    ['nothing', [], NO_OPTIONS],
    ['undefined', [undefined], NO_OPTIONS],
    ['null', [null], NO_OPTIONS],
    ['a callback alone', [() => {}], NO_OPTIONS],
    ['no options', [{}], NO_KEYS],
    ['other options', [{ resolveUser: () => null }], NO_KEYS],
    ['keys that verify nothing', [{ keys: {} }], NO_KEYS],
  ])('is not built from %s', (_what, given, message) => {
    expect(() => Reflect.construct(ApiKeyStrategy, given)).toThrow(TypeError)
    expect(() => Reflect.construct(ApiKeyStrategy, given)).toThrow(message)
  })

  it.each<[string, readonly unknown[], RegExp]>([
    ['nothing', [], NO_OPTIONS],
    ['no options', [{}], NO_KEYS],
  ])('is not built by Nest from %s', (_what, given, message) => {
    const Base = PassportStrategy(ApiKeyStrategy, 'apikey')
    class Strategy extends Base {
      validate(): boolean {
        return true
      }
    }
    expect(() => Reflect.construct(Strategy, given)).toThrow(message)
  })
})
