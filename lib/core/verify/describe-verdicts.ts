import { readAddress } from '../keys/client-address.ts'
import { isOfRequest } from '../keys/requirement-of-request.ts'
import { describePrefix, type Finding, invalid, passed, refused, skipped, toText } from './describe-steps.ts'
import type { Verdicts } from './judge-whole.ts'
import type { VerifyOptions } from './key-verifier.ts'

/** The steps of `decideKey`, in their order. */
export function describeVerdicts(verdicts: Verdicts, asked: VerifyOptions): readonly Finding[] {
  return [
    describePrefix(verdicts.facts.apiKey.prefix, asked.prefix),
    describeRevocation(verdicts),
    describeEnabled(verdicts),
    describeExpiry(verdicts),
    describeIdleExpiry(verdicts),
    describeOwner(verdicts),
    describeAddress(verdicts, asked),
    describePermissions(verdicts, asked),
  ]
}

function describeRevocation({ facts, refusals }: Verdicts): Finding {
  const { revokedAt, revokedBy, revokedReason } = facts.apiKey
  const read = { revokedAt: revokedAt && toText(revokedAt), revokedBy, revokedReason }
  if (!refusals.has('revocation')) return passed('revocation', 'The key is not revoked.', read)
  const when = revokedAt ? ` on ${toText(revokedAt)}` : ''
  return refused('revocation', invalid('revoked'), `The key was revoked${when}.`, read)
}

function describeEnabled({ facts, refusals }: Verdicts): Finding {
  const read = { enabled: facts.apiKey.enabled }
  if (!refusals.has('enabled')) return passed('enabled', 'The key is enabled.', read)
  return refused('enabled', invalid('disabled'), 'The key is disabled.', read)
}

function describeExpiry({ facts, refusals }: Verdicts): Finding {
  const { expiresAtMs } = facts
  if (expiresAtMs === null) return passed('expiry', 'The key has no date of expiry.', { expiresAt: null })
  const expiresAt = toText(expiresAtMs)
  if (!refusals.has('expiry')) return passed('expiry', `The key expires on ${expiresAt}.`, { expiresAt })
  return refused('expiry', invalid('expired'), `The key expired on ${expiresAt}.`, { expiresAt })
}

function describeIdleExpiry({ facts, idleAtMs, refusals }: Verdicts): Finding {
  const { idleExpiryMs, lastUsedAt } = facts.apiKey
  if (idleExpiryMs === null) {
    return passed('idle_expiry', 'The key does not expire for lack of use.', { idleExpiryMs })
  }
  const endsAt = toText(idleAtMs)
  const read = { idleExpiryMs, lastUsedAt: lastUsedAt && toText(lastUsedAt), endsAt }
  if (!refusals.has('idle_expiry')) {
    return passed('idle_expiry', `Unless it is used, the key expires on ${endsAt}.`, read)
  }
  return refused('idle_expiry', invalid('idle'), `The key expired for lack of use on ${endsAt}.`, read)
}

function describeOwner({ facts, owner, refusals }: Verdicts): Finding {
  const read = { owner: facts.apiKey.owner }
  if (owner === 'not_asked') return skipped('owner', NOT_ASKED, read)
  if (refusals.has('owner')) {
    return refused('owner', invalid('owner_inactive'), 'The owner of the key may use no keys.', read)
  }
  return passed(
    'owner',
    owner === 'asked' ? 'The owner may use keys.' : 'The service asks about no owners.',
    read,
  )
}

const NOT_ASKED = 'Your application was not asked about the owner, since the key is refused before.'

function describeAddress({ facts, refusals }: Verdicts, { ip }: VerifyOptions): Finding {
  const { allowedIps } = facts.apiKey
  const address = readAddress(ip)?.text ?? null
  const read = { ip: address, allowedIps }
  if (allowedIps === null) return passed('address', 'The key may be used from everywhere.', read)
  if (!refusals.has('address')) return passed('address', 'The key may be used from the address.', read)
  const verdict = { outcome: 'address_not_allowed', reason: null, retryAfterMs: null } as const
  const message =
    address === null
      ? 'The key may be used from some addresses only, and the call has no address.'
      : 'The key may not be used from the address.'
  return refused('address', verdict, message, read)
}

function describePermissions({ facts, granted, owner, refusals }: Verdicts, asked: VerifyOptions): Finding {
  const { permissions } = asked
  if (!permissions) return passed('permissions', 'The call needs no permissions.', { required: null })
  const held = (granted ?? facts.apiKey).permissions
  const read = { required: isOfRequest(permissions) ? null : permissions, held }
  const refusal = refusals.get('permissions')
  if (refusal?.code === 'insufficient_permissions') {
    const verdict = { outcome: refusal.code, reason: null, retryAfterMs: null }
    const message = 'The key lacks permissions that the call needs.'
    return refused('permissions', verdict, message, { ...read, missing: refusal.missing })
  }
  // The owner may lack some of them.
  if (owner === 'not_asked') return skipped('permissions', NOT_ASKED, read)
  return passed('permissions', 'The key has the permissions that the call needs.', read)
}
