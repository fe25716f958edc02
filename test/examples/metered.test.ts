import { request } from 'node:http'
import { type ApiKeys, memoryRateLimiter } from 'latchkey'
import { describe, expect, it, vi } from 'vitest'
import { createApp } from '../../examples/metered/app.ts'
import { curlLines } from '../../examples/metered/curl-lines.ts'
import { createKeys } from '../../examples/metered/keys.ts'
import { echo, type Model } from '../../examples/metered/model.ts'
import { describeReadme } from '../support/example.ts'
import { listen, serve } from '../support/raw-http.ts'

describeReadme('metered', curlLines('', '', ''))

/** The tokens of the plan in a day. */
const PRO = 100_000
const ACME = { type: 'organization', id: 'acme' }

async function left(keys: ApiKeys, id: string): Promise<number | undefined> {
  return (await keys.limits(id))?.find(({ name }) => name === 'tokens')?.remaining
}

describe('the application', () => {
  it('charges all keys of a customer for what replies take', async () => {
    const keys = createKeys(() => 'free')
    const ask = await serve(createApp({ keys, model: echo }))
    const [one, two] = [
      await keys.issue({ owner: ACME, name: 'a' }),
      await keys.issue({ owner: ACME, name: 'b' }),
    ]
    for (const { key } of [one, two]) {
      const answer = await ask(
        '/chat',
        [`X-Api-Key: ${key}`, 'Content-Type: text/plain', 'Content-Length: 7', '', 'one two'],
        {
          method: 'POST',
        },
      )
      expect(answer.status).toBe(200)
      expect(answer.body).toContain('one one two two')
    }
    expect(await left(keys, one.apiKey.id)).toBe(60 - 2 * 5)
    expect(await left(keys, two.apiKey.id)).toBe(60 - 2 * 5)
  })

  it('charges a client that goes away for the tokens until then', async () => {
    const keys = createKeys(() => 'pro')
    let goOn = () => {}
    const gone = new Promise<void>((resolve) => {
      goOn = resolve
    })
    const model: Model = {
      async *reply() {
        for (let i = 0; i < 30; i++) yield 'word '
        await gone
        for (;;) yield 'word '
      },
    }
    const onError = vi.fn()
    const port = await listen(createApp({ keys, model, onError }))
    const { key, apiKey } = await keys.issue({ owner: ACME, name: 'a' })
    const headers = { 'X-Api-Key': key, 'Content-Type': 'text/plain' }
    const sent = request({ port, host: '127.0.0.1', method: 'POST', path: '/chat', headers })
    sent.on('error', () => {})
    sent.end('hello')
    await new Promise<void>((resolve) => {
      sent.on('response', (response) => response.once('data', () => resolve()))
    })
    sent.destroy()
    goOn()
    await vi.waitFor(async () => expect(await left(keys, apiKey.id)).not.toBe(PRO - 20))
    const tokens = PRO - ((await left(keys, apiKey.id)) as number)
    expect(tokens).toBeGreaterThanOrEqual(30)
    expect(onError).not.toHaveBeenCalled()
  })

  it('settles a reply that the model breaks off', async () => {
    const keys = createKeys(() => 'pro')
    const model: Model = {
      async *reply() {
        yield* ['one ', 'two ', 'three ']
        throw new Error('out of memory')
      },
    }
    const onError = vi.fn()
    const ask = await serve(createApp({ keys, model, onError }))
    const { key, apiKey } = await keys.issue({ owner: ACME, name: 'a' })
    const lines = [`X-Api-Key: ${key}`, 'Content-Type: text/plain', 'Content-Length: 0']
    await ask('/chat', lines, { method: 'POST' }).catch(() => {})
    await vi.waitFor(async () => expect(await left(keys, apiKey.id)).toBe(PRO - 3))
    await vi.waitFor(() => expect(onError.mock.calls).toMatchObject([[{ message: 'out of memory' }]]))
  })

  it('ends a reply although it cannot be settled', async () => {
    const limiter = memoryRateLimiter()
    const settle = () => Promise.reject(new Error('the limiter is away'))
    const keys = createKeys(() => 'pro', { rateLimiter: { ...limiter, settle }, onEvent: () => {} })
    const onError = vi.fn()
    const ask = await serve(createApp({ keys, model: echo, onError }))
    const { key } = await keys.issue({ owner: ACME, name: 'a' })
    const lines = [`X-Api-Key: ${key}`, 'Content-Type: text/plain', 'Content-Length: 3', '', 'one']
    const answer = await ask('/chat', lines, { method: 'POST' })
    expect(answer.body).toContain('one one')
    expect(onError.mock.calls).toMatchObject([[{ code: 'unavailable' }]])
  })
})
